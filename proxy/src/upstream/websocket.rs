//! Where the frames of a WebSocket end (RFC 6455 §5.2), and how one is ended.
//!
//! ```text
//!  head ──101 with Sec-WebSocket-Accept──> frames: between ──header──> within ──payload passed──> between
//!   └──anything else──> opaque: nothing is known, and nothing is ever put in      └──a Close frame──> opaque
//! ```
//!
//! Whoever looks at a page while weir goes down should be told so (1001), and his browser can connect again at once; and
//! so should the application. weir may only say so between two frames of what the other side says, and not after that
//! has taken leave itself. To know where that is, it takes note of how long each frame is, and of nothing else.

/// A head that is longer is none that pingora takes, bytes.
const HEAD_MAX: usize = 1 << 20;
/// Longest header of a frame, bytes.
const HEADER_MAX: usize = 14;
/// Opcode of a Close frame.
const CLOSE: u8 = 0x8;
/// "Going away", as a Close frame says it (§7.4.1).
const GOING_AWAY: [u8; 2] = 1001_u16.to_be_bytes();

/// What one side of a WebSocket says, and how far it is.
#[derive(Debug)]
pub(super) struct Frames(State);

#[derive(Debug)]
enum State {
    Head { side: Side, bytes: Vec<u8> },
    Within(Frame),
    Opaque,
}

/// Who says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Vm,
}

/// The frame that is under way.
#[derive(Debug, Default)]
struct Frame {
    header: [u8; HEADER_MAX],
    /// Bytes of it that are known.
    known: usize,
    /// Bytes of the payload that are still to come, once the header is whole.
    left: u64,
}

impl Frames {
    /// From the first byte of the handshake on.
    pub(super) fn of(side: Side) -> Self {
        Self(State::Head { side, bytes: Vec::new() })
    }

    /// Takes note of `bytes`, which come next.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = self.step(rest);
            rest = &rest[taken..];
        }
    }

    /// As [`Frames::pass`], but only up to the end of the frame that is under way; how many bytes that was.
    pub(super) fn pass_to_end(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while passed < bytes.len() && !self.is_between() {
            passed += self.step(&bytes[passed..]);
        }
        passed
    }

    /// A frame may be put in here.
    pub(super) fn is_between(&self) -> bool {
        matches!(&self.0, State::Within(frame) if frame.known == 0)
    }

    /// No frame may ever be put in.
    pub(super) fn is_opaque(&self) -> bool {
        matches!(self.0, State::Opaque)
    }

    /// Takes some of `bytes`, which are not none.
    fn step(&mut self, bytes: &[u8]) -> usize {
        let (taken, next) = match &mut self.0 {
            State::Opaque => (bytes.len(), None),
            State::Head { side, bytes: head } => take_head(*side, head, bytes),
            State::Within(frame) => {
                let taken = frame.take(bytes);
                (taken, frame.is_close().then_some(State::Opaque))
            }
        };
        if let Some(next) = next {
            self.0 = next;
        }
        taken
    }
}

/// Takes as much as belongs to the head; what comes then, if it is whole.
fn take_head(side: Side, head: &mut Vec<u8>, bytes: &[u8]) -> (usize, Option<State>) {
    let before = head.len();
    head.extend_from_slice(bytes);
    let from = before.saturating_sub(3);
    let Some(end) = head[from..].windows(4).position(|window| window == b"\r\n\r\n") else {
        return (bytes.len(), (head.len() > HEAD_MAX).then_some(State::Opaque));
    };
    let end = from + end + 4;
    head.truncate(end);
    let status = head.get(9..12);
    let next = match side {
        // It has no body, or it is no WebSocket's.
        Side::Client if !has_field(head, b"content-length") && !has_field(head, b"transfer-encoding") => {
            State::Within(Frame::default())
        }
        Side::Vm if status == Some(b"101") && has_field(head, b"sec-websocket-accept") => {
            State::Within(Frame::default())
        }
        // What comes before an answer (RFC 9110 §15.2).
        Side::Vm if status.is_some_and(|status| status[0] == b'1' && status != b"101") => {
            State::Head { side, bytes: Vec::new() }
        }
        Side::Client | Side::Vm => State::Opaque,
    };
    (end - before, Some(next))
}

fn has_field(head: &[u8], name: &[u8]) -> bool {
    head.split(|byte| *byte == b'\n').any(|line| {
        line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
            && line.get(name.len()) == Some(&b':')
    })
}

impl Frame {
    /// Takes the next byte of the header, or as much as there is of the payload.
    fn take(&mut self, bytes: &[u8]) -> usize {
        if self.left > 0 {
            let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.left -= taken as u64;
            if self.left == 0 {
                self.known = 0;
            }
            return taken;
        }
        self.header[self.known] = bytes[0];
        self.known += 1;
        if let Some(length) = self.payload() {
            self.left = length;
            if length == 0 && !self.is_close() {
                self.known = 0;
            }
        }
        1
    }

    /// How long the payload is, when the header is whole.
    fn payload(&self) -> Option<u64> {
        let [_, second, ..] = self.header;
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & 0x80 != 0 { 4 } else { 0 };
        if self.known < 2 || self.known < 2 + extended + mask {
            return None;
        }
        Some(match extended {
            0 => u64::from(second & 0x7f),
            extended => {
                self.header[2..2 + extended].iter().fold(0, |length, byte| length << 8 | u64::from(*byte))
            }
        })
    }

    fn is_close(&self) -> bool {
        self.known > 0 && self.header[0] & 0xf == CLOSE
    }
}

/// To the client, as if the VM said it.
pub(super) fn close_to_client() -> [u8; 4] {
    let [high, low] = GOING_AWAY;
    [0x80 | CLOSE, 2, high, low]
}

/// To the VM, as if the client said it: masked (§5.3).
pub(super) fn close_to_vm(mask: [u8; 4]) -> [u8; 8] {
    let ([high, low], [a, b, c, d]) = (GOING_AWAY, mask);
    [0x80 | CLOSE, 0x80 | 2, a, b, c, d, high ^ a, low ^ b]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SWITCH: &[u8] = b"HTTP/1.1 103 x\r\na: b\r\n\r\nHTTP/1.1 101 x\r\nSec-WebSocket-Accept: y\r\n\r\n";

    /// Any frame that is no Close, by RFC 6455 §5.2.
    fn frame() -> impl Strategy<Value = Vec<u8>> {
        let length = prop_oneof![Just(0), 1..126_usize, 126..300_usize, Just(65_536)];
        (any::<u8>(), any::<Option<[u8; 4]>>(), length, 0..2_u8).prop_map(|(first, mask, length, wide)| {
            let first = if first & 0xf == CLOSE { first ^ CLOSE } else { first };
            let bit = if mask.is_some() { 0x80 } else { 0 };
            let mut frame = vec![first];
            match (length, wide) {
                (0..126, 0) => frame.push(bit | u8::try_from(length).unwrap()),
                (0..65_536, _) => {
                    frame.push(bit | 126);
                    frame.extend(u16::try_from(length).unwrap().to_be_bytes());
                }
                _ => {
                    frame.push(bit | 127);
                    frame.extend((length as u64).to_be_bytes());
                }
            }
            frame.extend(mask.into_iter().flatten());
            frame.resize(frame.len() + length, 0x88);
            frame
        })
    }

    proptest! {
        #[test]
        fn ends_are_known_however_it_comes_in_pieces(
            frames in proptest::collection::vec(frame(), 0..5),
            cuts in proptest::collection::vec(1..400_usize, 1..50),
        ) {
            let mut ends = vec![SWITCH.len()];
            let mut bytes = SWITCH.to_vec();
            for frame in &frames {
                bytes.extend_from_slice(frame);
                ends.push(bytes.len());
            }
            let (mut seen, mut at) = (Frames::of(Side::Vm), 0);
            for cut in cuts.iter().cycle() {
                prop_assert_eq!(seen.is_between(), ends.contains(&at), "at {}", at);
                if at == bytes.len() {
                    break;
                }
                let piece = &bytes[at..bytes.len().min(at + cut)];
                // In the middle of a frame one can go to its end.
                let mut other = Frames::of(Side::Vm);
                other.pass(&bytes[..at]);
                if !other.is_between() {
                    let end = ends.iter().copied().find(|end| *end > at).unwrap_or(usize::MAX);
                    prop_assert_eq!(other.pass_to_end(piece), piece.len().min(end - at));
                }
                seen.pass(piece);
                at += piece.len();
            }
        }

        #[test]
        fn nothing_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for side in [Side::Client, Side::Vm] {
                let mut frames = Frames::of(side);
                frames.pass(SWITCH);
                frames.pass(&bytes);
            }
        }
    }

    #[test]
    fn after_a_leave_or_no_switch_nothing_is_put_in() {
        for bytes in [
            [SWITCH, &close_to_client()].concat(),
            [SWITCH, &[0x88, 0]].concat(),
            b"HTTP/1.1 101 x\r\nupgrade: websocket\r\n\r\n".to_vec(),
            b"HTTP/1.1 200 x\r\nsec-websocket-accept: y\r\n\r\n".to_vec(),
        ] {
            let mut frames = Frames::of(Side::Vm);
            frames.pass(&bytes);
            assert!(frames.is_opaque() && !frames.is_between(), "{bytes:?}");
        }
        let mut frames = Frames::of(Side::Client);
        frames.pass(b"GET / HTTP/1.1\r\nContent-Length: 1\r\n\r\n");
        assert!(frames.is_opaque());
        let mut frames = Frames::of(Side::Client);
        frames.pass(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert!(frames.is_between());
        frames.pass(&close_to_vm([1, 2, 3, 4]));
        assert!(frames.is_opaque());
    }
}
