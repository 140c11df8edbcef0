//! A real browser without a screen, told what to do by WebDriver (W3C) over plain HTTP.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gateway::lab::namespace::Namespace;
use serde_json::{Value, json};

/// Where chromedriver listens, in the browser's namespace.
const PORT: u16 = 9515;
/// How long the driver may take to start, and to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// What keeps Chromium to itself: it asks nobody for anything, and root needs no sandbox.
const ARGUMENTS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1440,1000",
];

/// Whether Chromium and its driver are there; else why a test is skipped.
///
/// # Panics
/// Where every tool has to be (`ISTHMUS_REQUIRE_TOOLS`) and these are not.
pub fn installed() -> bool {
    let answers = |program: &str| {
        let mut command = Command::new(program);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let found = answers("chromedriver") && answers("chromium");
    let required = std::env::var_os("ISTHMUS_REQUIRE_TOOLS").is_some();
    assert!(found || !required, "chromium-driver is not installed");
    if !found {
        println!("SKIP: chromium (apt-get install chromium chromium-driver)");
    }
    found
}

/// A browser in a namespace; dropping it ends it.
pub struct Browser<'a> {
    namespace: &'a Namespace,
    driver: Child,
    session: String,
}

impl<'a> Browser<'a> {
    /// Starts one, which takes these names for these addresses.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(namespace: &'a Namespace, names: &[(&str, &str)]) -> io::Result<Self> {
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={PORT}")).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let driver = namespace.start(command)?;
        let mut browser = Self { namespace, driver, session: String::new() };
        let rules: Vec<String> =
            names.iter().map(|(name, address)| format!("MAP {name} {address}")).collect();
        let arguments: Vec<String> = ARGUMENTS
            .iter()
            .map(|argument| (*argument).to_owned())
            .chain([format!("--host-resolver-rules={}", rules.join(","))])
            .collect();
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"args": arguments},
        }}});
        let deadline = Instant::now() + PATIENCE;
        let session = loop {
            match browser.ask("POST", "/session", &wanted) {
                Err(error)
                    if Instant::now() < deadline
                        && error.kind() == io::ErrorKind::ConnectionRefused =>
                {
                    std::thread::sleep(Duration::from_millis(100));
                }
                answer => break answer?,
            }
        };
        browser.session = session["sessionId"].as_str().unwrap_or_default().to_owned();
        Ok(browser)
    }

    /// Goes to a page, and waits until it is there.
    ///
    /// # Errors
    /// What the driver says.
    pub fn visit(&self, url: &str) -> io::Result<()> {
        self.tell("url", &json!({"url": url})).map(drop)
    }

    /// What the body of a function returns in the page.
    ///
    /// # Errors
    /// What the driver says.
    pub fn run(&self, script: &str) -> io::Result<Value> {
        self.tell("execute/sync", &json!({"script": script, "args": []}))
    }

    /// What the body of a function gives to its last argument, a callback.
    ///
    /// # Errors
    /// What the driver says.
    pub fn run_until(&self, script: &str) -> io::Result<Value> {
        let script = format!("const done = arguments[0]; {script}");
        self.tell("execute/async", &json!({"script": script, "args": []}))
    }

    /// Waits until an expression is true.
    ///
    /// # Errors
    /// It is not, for a minute.
    pub fn wait_for(&self, expression: &str) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.run(&format!("return Boolean({expression})"))? != true {
            if Instant::now() > deadline {
                let page = self.run("return document.body.innerText")?;
                let page: String = page.as_str().unwrap_or_default().chars().take(3_000).collect();
                return Err(io::Error::other(format!("never true: {expression}\n{page}")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Has it prefer `light` or `dark`, on a screen so wide.
    ///
    /// # Errors
    /// What the driver says.
    pub fn look(&self, theme: &str, width: u32) -> io::Result<()> {
        let features = json!([{"name": "prefers-color-scheme", "value": theme}]);
        self.command("Emulation.setEmulatedMedia", &json!({"features": features}))?;
        let screen =
            json!({"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": false});
        self.command("Emulation.setDeviceMetricsOverride", &screen)
    }

    /// What the page wrote to its console since the last question, and what was refused to it.
    ///
    /// # Errors
    /// What the driver says.
    pub fn console(&self) -> io::Result<Vec<String>> {
        let entries = self.tell("se/log", &json!({"type": "browser"}))?;
        let text = |entry: &Value| entry["message"].as_str().unwrap_or_default().to_owned();
        Ok(entries.as_array().map(|entries| entries.iter().map(text).collect()).unwrap_or_default())
    }

    fn command(&self, name: &str, parameters: &Value) -> io::Result<()> {
        self.tell("goog/cdp/execute", &json!({"cmd": name, "params": parameters})).map(drop)
    }

    fn tell(&self, what: &str, body: &Value) -> io::Result<Value> {
        self.ask("POST", &format!("/session/{}/{what}", self.session), body)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> io::Result<Value> {
        let body = body.to_string();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let stream = self.namespace.run(|| TcpStream::connect(("127.0.0.1", PORT)))??;
        let answer = exchange(stream, &request)?;
        let mut answer: Value = serde_json::from_str(body_of(&answer)).map_err(io::Error::other)?;
        match answer["value"]["error"].as_str() {
            Some(error) => {
                let message = answer["value"]["message"].as_str().unwrap_or_default();
                Err(io::Error::other(format!("{error}: {message}")))
            }
            None => Ok(answer["value"].take()),
        }
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        // Whatever fails here is gone already.
        let _ = self.ask("DELETE", &format!("/session/{}", self.session), &json!({}));
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// One request, and all of the answer; both as they are on the wire.
///
/// # Errors
/// As the kernel says.
pub fn exchange(mut stream: TcpStream, request: &str) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    read_answer(&mut stream)
}

/// An answer with Content-Length, or all there is until the end.
fn read_answer(stream: &mut TcpStream) -> io::Result<String> {
    let (mut octets, mut piece) = (Vec::new(), [0; 16 << 10]);
    loop {
        let text = String::from_utf8_lossy(&octets);
        if text.split_once("\r\n\r\n").is_some_and(|(head, body)| length(head) == Some(body.len()))
        {
            return Ok(text.into_owned());
        }
        match stream.read(&mut piece)? {
            0 => return String::from_utf8(octets).map_err(io::Error::other),
            read => octets.extend_from_slice(&piece[..read]),
        }
    }
}

fn length(head: &str) -> Option<usize> {
    let line =
        head.lines().find(|line| line.to_ascii_lowercase().starts_with("content-length:"))?;
    line.split_once(':')?.1.trim().parse().ok()
}

fn body_of(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}
