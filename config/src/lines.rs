//! Text files of which each line is something by itself.

/// Lines with their numbers, from 1, without white space around them; without those that are empty or begin with a `#`.
///
/// # Errors
/// If it is no UTF-8: a message that names the line.
pub(crate) fn lines(bytes: &[u8]) -> Result<impl Iterator<Item = (usize, &str)>, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        format!("line {line}: is no UTF-8")
    })?;
    let numbered = (1..).zip(text.split('\n').map(str::trim));
    Ok(numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_empty_lines_count_and_are_left_out() {
        let text = "# list\r\n\r\n  a # one\r\n#\nb\n\tc d";
        let found: Vec<_> = lines(text.as_bytes()).unwrap().collect();
        assert_eq!(found, [(3, "a # one"), (5, "b"), (6, "c d")]);
        assert_eq!(lines(b"a\nb\xff\n").err().as_deref(), Some("line 2: is no UTF-8"));
    }
}
