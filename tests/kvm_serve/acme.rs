//! Certificates from pebble, Let's Encrypt's server for tests, which looks at names as they do: by way of DNS, at ports 80
//! and 443. So pebble, its DNS, weir and its clients have a network of their own, with the same ports in each test.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::support::Weir;

/// A network namespace with an ACME server that knows every name as 127.0.0.1.
struct World {
    directory: tempfile::TempDir,
    holder: Running,
    servers: Vec<Running>,
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing to do for one that has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Starts `command` and waits until it writes a line with `sign` in it; its later lines are thrown away.
    fn start(command: &mut Command, sign: &str) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Self(child.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
        let (told, lines) = std::sync::mpsc::channel();
        let outputs: [Option<Box<dyn Read + Send>>; 2] = [
            running.0.stdout.take().map(|output| Box::new(output) as _),
            running.0.stderr.take().map(|output| Box::new(output) as _),
        ];
        for output in outputs.into_iter().flatten() {
            let told = told.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    // When nobody listens any more it is still read, so that the process goes on.
                    let _ = told.send(line);
                }
            });
        }
        drop(told);
        let mut seen = String::new();
        while !seen.contains(sign) {
            let line = lines.recv_timeout(crate::support::PATIENCE);
            seen += &line.unwrap_or_else(|error| panic!("{command:?} {error}; said:\n{seen}"));
            seen.push('\n');
        }
        running
    }
}

impl World {
    /// `more`: keys of pebble's configuration.
    fn new(more: &str) -> Self {
        let directory = tempfile::tempdir().expect("make a directory");
        let up = "busybox ip link set lo up && echo up && exec sleep 600";
        let holder = Running::start(Command::new("unshare").args(["--net", "sh", "-c", up]), "up");
        let mut world = Self { directory, holder, servers: Vec::new() };
        world.make_certificate();
        let settings = format!(
            r#"{{"pebble": {{"listenAddress": "127.0.0.1:14000", "managementListenAddress": "127.0.0.1:15000",
            "certificate": "{0}", "privateKey": "{1}", "httpPort": 80, "tlsPort": 443{more}}}}}"#,
            world.file("ca.pem"),
            world.file("ca.key"),
        );
        std::fs::write(world.path("pebble.json"), settings).expect("write pebble's configuration");
        let mut dns = world.command("pebble-challtestsrv");
        dns.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dns01", "127.0.0.1:8053"]);
        dns.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-management", "127.0.0.1:8055"]);
        world.servers.push(Running::start(&mut dns, "Starting management server"));
        let mut pebble = world.command("pebble");
        pebble.args(["-strict", "-dnsserver", "127.0.0.1:8053", "-config", &world.file("pebble.json")]);
        // No waits between checks; names are looked at each time; many nonces are refused, to be tried again.
        pebble.envs([
            ("PEBBLE_VA_NOSLEEP", "1"),
            ("PEBBLE_AUTHZREUSE", "0"),
            ("PEBBLE_WFE_NONCEREJECT", "20"),
        ]);
        world.servers.push(Running::start(&mut pebble, "ACME directory available at"));
        world
    }

    /// Of pebble itself, which is 127.0.0.1.
    fn make_certificate(&self) {
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-days", "2", "-subj", "/CN=pebble", "-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-out", &self.file("ca.pem"), "-keyout", &self.file("ca.key")])
            .output()
            .expect("run openssl");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn file(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn prefix(&self) -> String {
        format!("--net=/proc/{}/ns/net", self.holder.0.id())
    }

    /// A command within the namespace.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args([&self.prefix(), "timeout", "60", program]);
        command
    }

    /// What a command within the namespace writes, if it succeeds.
    fn output(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let mut command = self.command(program);
        let output = command.args(arguments).stdin(Stdio::null()).output().expect("run a command");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(text) } else { Err(text + &String::from_utf8_lossy(&output.stderr)) }
    }

    fn curl(&self, arguments: &[&str]) -> Result<String, String> {
        self.output("curl", &[&["-sS", "--max-time", "8"], arguments].concat())
    }

    /// The body of `https://HOST/`, whose certificate has to be pebble's for that name.
    fn get(&self, host: &str) -> Result<String, String> {
        let root = self.file("root.pem");
        self.curl(&["-k", "-o", &root, "https://127.0.0.1:15000/roots/0"])?;
        let resolve = format!("{host}:443:127.0.0.1");
        self.curl(&["--cacert", &root, "--resolve", &resolve, &format!("https://{host}/")])
    }

    /// The value of a metric's first sample that begins with `series`.
    fn metric(&self, series: &str) -> Option<f64> {
        let text = self.curl(&["http://127.0.0.1:9180/metrics"]).expect("weir serves its metrics");
        let line = text.lines().find(|line| line.starts_with(series))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    fn start(&self, config: &str) -> Weir {
        Weir::start_by(&["nsenter", &self.prefix()], Path::new(env!("CARGO_BIN_EXE_weir")), config)
    }

    /// `plain`: keys of the listener without TLS, `acme`: of `[acme]`.
    fn config(&self, names: &str, plain: &str, acme: &str) -> String {
        let (ca, state) = (self.file("ca.pem"), self.file("state"));
        format!(
            "[[listener]]\n{plain}\n\
             [[listener]]\naddress = '127.0.0.1:443'\ntls = {{ acme = {{ names = [{names}] }} }}\n\
             [admin]\naddress = '127.0.0.1:9180'\n\
             [acme]\ndirectory = 'https://127.0.0.1:14000/dir'\nca = '{ca}'\nstate = '{state}'\n\
             accept_terms = true\ncontact = ['mailto:ops@a.example']\n{acme}\n\
             [[route]]\nrespond = {{ body = 'served' }}\n"
        )
    }

    /// The files that weir keeps, with their permissions.
    fn kept(&self) -> Vec<(String, u32)> {
        let home = self.path("state").join("127.0.0.1%3A14000%2Fdir");
        let mode = |path: &Path| path.metadata().expect("look at it").permissions().mode() & 0o777;
        assert_eq!(mode(&home), 0o700);
        let files = std::fs::read_dir(home).expect("list it").flatten();
        let mut files: Vec<_> =
            files.map(|file| (file.file_name().into_string().expect("text"), mode(&file.path()))).collect();
        files.sort();
        files
    }
}

/// Waits until weir shows what it has just obtained.
fn shown(weir: &Weir) {
    weir.logged("certificate obtained");
    weir.logged("certificate reloaded");
}

#[test]
fn http_01_before_redirects_and_kept_over_a_restart() {
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let world = World::new(&format!(
        r#", "externalAccountBindingRequired": true, "externalAccountMACKeys": {{"kid-1": "{key}"}}"#
    ));
    std::fs::write(world.path("eab.key"), format!("{key}\n")).expect("write the external key");
    let plain = "address = '127.0.0.1:80'\nredirect_https = true";
    let acme = format!("eab_kid = 'kid-1'\neab_key_file = '{}'", world.file("eab.key"));
    let config = world.config("'a.example'", plain, &acme);
    let weir = world.start(&config);
    shown(&weir);
    assert_eq!(world.get("a.example").as_deref(), Ok("served"));
    assert!(world.get("b.example").is_err(), "the certificate is not for this name");
    assert_eq!(world.metric("weir_acme_orders_total{result=\"ok\"}"), Some(1.0));
    let redirect = world.curl(&["-i", "http://127.0.0.1/.well-known/acme-challenge/token"]);
    assert!(redirect.is_ok_and(|text| text.starts_with("HTTP/1.1 308")), "nothing is pending any more");
    let kept = world.kept();
    assert_eq!(kept, [("a.example.pem".to_owned(), 0o600), ("account.json".to_owned(), 0o600)]);
    let account = std::fs::read(world.path("state/127.0.0.1%3A14000%2Fdir/account.json")).expect("read it");

    drop(weir);
    let again = world.start(&config);
    assert_eq!(world.get("a.example").as_deref(), Ok("served"));
    again.until("weir has looked at what it holds", || {
        world.metric("weir_certificate_not_after_seconds{name=\"a.example\"}").is_some()
    });
    assert_eq!(world.metric("weir_acme_orders_total{result=\"ok\"}"), Some(0.0), "it is not ordered again");

    // Other names are, with the same account, and what there is stays in use until then.
    again.configure(&world.config("'a.example', 'b.example'", plain, &acme));
    again.logged("configuration reloaded");
    assert_eq!(world.get("a.example").as_deref(), Ok("served"));
    shown(&again);
    assert_eq!(world.get("b.example").as_deref(), Ok("served"));
    let now = std::fs::read(world.path("state/127.0.0.1%3A14000%2Fdir/account.json")).expect("read it");
    assert!(account == now, "another account was made");
}

#[test]
fn tls_alpn_01_on_the_listener_itself() {
    let world = World::new("");
    let weir = world.start(&world.config(
        "'a.example', 'www.a.example'",
        "address = '127.0.0.1:8080'",
        "challenge = 'tls-alpn-01'",
    ));
    shown(&weir);
    for name in ["a.example", "www.a.example"] {
        assert_eq!(world.get(name).as_deref(), Ok("served"));
    }
    let s_client = |protocols: &str| {
        let address = ["s_client", "-connect", "127.0.0.1:443", "-servername", "a.example"];
        world.output("openssl", &[&address[..], &["-alpn", protocols]].concat())
    };
    let said = s_client("acme-tls/1,http/1.1").expect("a client of HTTP");
    assert!(said.contains("ALPN protocol: http/1.1") && said.contains("Pebble Intermediate"), "{said}");
    assert!(s_client("acme-tls/1").is_err(), "nothing is pending any more");
}

#[test]
fn what_the_ca_says_is_logged_and_clients_are_refused_meanwhile() {
    let world = World::new("");
    // The CA finds nobody at port 80.
    let weir = world.start(&world.config("'a.example'", "address = '127.0.0.1:8080'", ""));
    let line = weir.logged("certificate not obtained");
    let cause = line["fields"]["cause"].as_str().expect("a cause");
    assert!(cause.contains("urn:ietf:params:acme:error:connection"), "{cause}");
    assert!(line["fields"]["again_in"].as_u64().is_some_and(|seconds| seconds >= 720), "{line}");
    assert_eq!(world.metric("weir_acme_orders_total{result=\"failed\"}"), Some(1.0));
    assert!(world.get("a.example").is_err());
    assert_eq!(world.curl(&["http://127.0.0.1:8080/"]).as_deref(), Ok("served"));
}

#[test]
fn a_renewal_costs_no_request() {
    let world = World::new(r#", "certificateValidityPeriod": 4"#);
    let weir = world.start(&world.config("'a.example'", "address = '127.0.0.1:80'", ""));
    shown(&weir);
    let over = AtomicBool::new(false);
    let serial = || {
        let pem = std::fs::read_to_string(world.path("state/127.0.0.1%3A14000%2Fdir/a.example.pem"));
        pem.expect("read the certificate")
    };
    let first = serial();
    std::thread::scope(|scope| {
        // Each request has a connection and a handshake of its own. It expires soon, so its dates are not looked at.
        let clients = scope.spawn(|| {
            let mut answered = 0;
            while !over.load(SeqCst) {
                let options =
                    ["-k", "--http1.1", "-H", "connection: close", "-w", "%{http_code}\n", "-o", "/dev/null"];
                let resolve = ["--resolve", "a.example:443:127.0.0.1", "https://a.example/[1-20]"];
                let codes = world.curl(&[&options[..], &resolve].concat()).expect("no request fails");
                answered += codes.lines().filter(|code| *code == "200").count();
                assert_eq!(codes.lines().count(), 20, "{codes}");
                assert!(codes.lines().all(|code| code == "200"), "{codes}");
            }
            answered
        });
        shown(&weir);
        over.store(true, SeqCst);
        assert!(clients.join().expect("the clients are content") >= 20);
    });
    assert!(serial() != first);
}
