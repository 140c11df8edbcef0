//! The web page: as a browser sees it, and as somebody sees it who should not.
//!
//! ```text
//!   browser, other site [native: gateway] 198.51.100.1 --- 198.51.100.2 [site: resolver of every EID, at 198.51.100.11 its ETR]
//!   192.0.2.80, 2001:db8:ffff::80                          198.51.100.3 [site: Map-Server]
//! ```

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use gateway::lab::namespace::Namespace;
use interop_tests::browser::{Browser, exchange, installed};
use interop_tests::daemon::Daemon;
use interop_tests::oracle::Oracle;
use interop_tests::site::{Hosts, or_skip};
use mapping::admin::Query;
use nix::sys::signal::Signal;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(90);
/// Map-cache entries that the page has to show.
const ENTRIES: u16 = 10_000;
/// The page of the gateway, for its own host.
const PAGE: &str = "http://127.0.0.1:8043/";
/// The page of the Map-Server, for the gateway's host too.
const OTHER_PAGE: &str = "http://198.51.100.3:8043/";

const GATEWAY: &str = r#"
[gateway]
name = "pxtr"
rlocs = ["198.51.100.1"]
map-resolvers = ["198.51.100.2"]
[pitr]
eid-aggregates = ["2001:db8:e000::/36"]
[petr]
accept-from = { rlocs = ["198.51.100.0/24"], eids = ["2001:db8:e000::/36"] }
[web]
listen = "127.0.0.1:8043"
"#;

const MAPPING: &str = r#"
[mapping]
name = "ms"
listen = ["198.51.100.3"]
[[site]]
name = "<img src=x onerror=\"document.title='taken over'\">"
keys = [{ id = 1, file = "KEY" }]
eid-prefixes = ["203.0.113.0/26"]
[web]
listen = "198.51.100.3:8043"
accept-from = ["198.51.100.1"]
"#;

/// Two hosts, and what runs on them.
struct Net {
    _mapping: Daemon,
    _oracle: Oracle,
    native: Namespace,
    site: Namespace,
}

impl Net {
    fn build() -> io::Result<Self> {
        let rlocs = ["198.51.100.2/24", "198.51.100.3/24", "198.51.100.11/24"];
        let hosts = ["192.0.2.80/32", "2001:db8:ffff::80/128"];
        let Hosts { native, site } = Hosts::build(&hosts, &rlocs)?;
        let own = |last| IpAddr::V4(Ipv4Addr::new(198, 51, 100, last));
        let oracle = Oracle::start(&site, own(2), own(11))?;
        let mapping = Daemon::start(&site, "mapping", MAPPING)?;
        Ok(Self { _mapping: mapping, _oracle: oracle, native, site })
    }

    fn gateway(&self) -> io::Result<Daemon> {
        Daemon::start(&self.native, "gateway", GATEWAY)
    }

    /// A packet from the Internet to an EID of each of the first `count` sites.
    fn talk_to_sites(&self, count: u16) -> io::Result<()> {
        self.native.run(move || {
            let socket = UdpSocket::bind("[2001:db8:ffff::80]:5000")?;
            for site in 0..count {
                let eid = Ipv6Addr::new(0x2001, 0xdb8, 0xe000, site, 0, 0, 0, 1);
                socket.send_to(b"to a site", (eid, 9))?;
                if site % 100 == 99 {
                    thread::sleep(Duration::from_millis(20));
                }
            }
            Ok(())
        })?
    }

    /// Has the gateway learn the mappings of so many sites.
    fn fill_map_cache(&self, gateway: &Daemon) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while gateway.counter("map_cache_entries")? < u64::from(ENTRIES) {
            if Instant::now() > deadline {
                let counters = gateway.ask(&Query::Counters)?;
                return Err(io::Error::other(format!("{counters}\n{}", gateway.log())));
            }
            self.talk_to_sites(ENTRIES)?;
            thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    }

    /// What `GET PATH` gets from the gateway's page, with these headers.
    fn get(&self, path: &str, headers: &str) -> String {
        self.say("GET", path, headers)
    }

    fn say(&self, method: &str, path: &str, headers: &str) -> String {
        let request = format!("{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
        let stream = self.native.run(|| TcpStream::connect("127.0.0.1:8043"));
        exchange(stream.expect("namespace").expect("a connection"), &request).expect("an answer")
    }
}

/// The status of an answer.
fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default()
}

const OWN: &str = "Host: localhost:8043\r\n";

#[test]
fn op_01_the_page_is_for_reading_on_this_host_only() {
    let Some(net) = or_skip(Net::build()) else { return };
    let gateway = net.gateway().expect("a gateway");
    let page = net.get("/", OWN);
    assert_eq!(status(&page), 200, "{page}");
    let head = page.split_once("\r\n\r\n").expect("a head").0.to_ascii_lowercase();
    for header in [
        "content-security-policy: default-src 'none'; script-src 'sha256-",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "x-frame-options: deny",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
        "cross-origin-resource-policy: same-origin",
    ] {
        assert!(head.contains(header), "{header}: {head}");
    }
    assert!(!head.contains("access-control"), "{head}");

    // Nothing but reading.
    let before = gateway.ask(&Query::Config).expect("the configuration");
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"] {
        for path in ["/", "/api/live", "/api/map-cache", "/elsewhere"] {
            let answer = net.say(method, path, &format!("{OWN}Content-Length: 0\r\n"));
            assert!(matches!(status(&answer), 400 | 405), "{method} {path}: {answer}");
        }
    }
    assert_eq!(gateway.ask(&Query::Config).expect("the configuration"), before);
    let head = net.say("HEAD", "/", OWN);
    assert!(status(&head) == 200 && head.ends_with("\r\n\r\n"), "{head}");
    assert_eq!(status(&net.get("/etc/passwd", OWN)), 404);
    assert_eq!(status(&net.get("/api/../../etc/passwd", OWN)), 404);

    // Other sites in a browser of this host, and names that somebody else's DNS lets point here.
    assert_eq!(status(&net.get("/", "Host: evil.example:8043\r\n")), 421);
    assert_eq!(status(&net.get("/", "")), 400);
    for header in [
        "Origin: http://evil.example",
        "Origin: null",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
    ] {
        let answer = net.get("/api/map-cache", &format!("{OWN}{header}\r\n"));
        assert_eq!(status(&answer), 403, "{header}: {answer}");
    }

    // Questions that make no sense.
    for path in [
        "/api/map-cache?after=tomorrow",
        "/api/map-cache?most=-1",
        "/api/map-cache?colour=green",
        "/api/history",
        "/api/history?counters=no_such_counter",
        "/api/registrations",
    ] {
        assert_eq!(status(&net.get(path, OWN)), 400, "{path}");
    }
    let long = format!("/api/map-cache?q={}", "x".repeat(3_000));
    assert_eq!(status(&net.get(&long, OWN)), 400);

    // Other hosts: a loopback address is not there for them, and who is not named is shown the door.
    let connect = |namespace: &Namespace, to: &'static str| {
        let connected = namespace.run(move || {
            let mut stream = TcpStream::connect(to)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: 198.51.100.3\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer)
        });
        connected.expect("namespace").unwrap_or_default()
    };
    assert_eq!(connect(&net.site, "198.51.100.1:8043"), "");
    assert_eq!(status(&connect(&net.native, "198.51.100.3:8043")), 200);
    assert_eq!(connect(&net.site, "198.51.100.3:8043"), "", "not in accept-from");

    // Viewers are bounded, and a place that is left is free again.
    let watch = || {
        net.native
            .run(|| {
                let mut stream = TcpStream::connect("127.0.0.1:8043")?;
                stream.set_read_timeout(Some(Duration::from_secs(20)))?;
                write!(stream, "GET /api/live HTTP/1.1\r\n{OWN}\r\n")?;
                let mut octets = [0; 12];
                stream.read_exact(&mut octets)?;
                io::Result::Ok((String::from_utf8_lossy(&octets).into_owned(), stream))
            })
            .expect("namespace")
            .expect("an answer")
    };
    let mut viewers: Vec<_> = (0..24).map(|_| watch()).collect();
    assert!(viewers.iter().all(|(head, _)| head == "HTTP/1.1 200"), "{viewers:?}");
    assert_eq!(watch().0, "HTTP/1.1 503");
    viewers.pop();
    let deadline = Instant::now() + Duration::from_secs(20);
    while watch().0 != "HTTP/1.1 200" {
        assert!(Instant::now() < deadline, "the place is not free again");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn op_01_the_page_in_a_real_browser() {
    if !installed() {
        return;
    }
    let Some(net) = or_skip(Net::build()) else { return };
    let mut gateway = net.gateway().expect("a gateway");
    let browser = Browser::start(&net.native, &[("evil.example", "127.0.0.1")]).expect("a browser");
    if let Err(error) = in_browser(&browser, &net, &mut gateway) {
        panic!("{error}\nconsole: {:?}\n{}", browser.console(), gateway.log());
    }
}

fn in_browser(browser: &Browser<'_>, net: &Net, gateway: &mut Daemon) -> io::Result<()> {
    loads(browser)?;
    lives(browser, net)?;
    net.fill_map_cache(gateway)?;
    shows_many(browser)?;
    is_readable(browser)?;
    assert_eq!(browser.console()?, Vec::<String>::new());
    survives(browser, net, gateway)?;
    takes_names_as_text(browser)?;
    refuses_others(browser, net)
}

/// From the click to figures on the screen: the best of three, as other tests run beside this one.
fn loads(browser: &Browser<'_>) -> io::Result<()> {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        browser.visit(PAGE)?;
        browser.wait_for("performance.getEntriesByName('shown').length")?;
        let shown = browser.run("return performance.getEntriesByName('shown')[0].startTime")?;
        best = best.min(shown.as_f64().unwrap_or(f64::INFINITY));
    }
    println!("figures on the screen after {best:.0} ms");
    assert!(best < 1_000.0, "{best} ms");
    let loaded = browser.run("return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.includes('/api/'))")?;
    assert_eq!(loaded, Value::Array(Vec::new()), "everything stands in the page");
    Ok(())
}

/// What happens to the daemon is seen without being asked for.
fn lives(browser: &Browser<'_>, net: &Net) -> io::Result<()> {
    browser.wait_for("document.getElementById('link').textContent === 'live'")?;
    let uptime = browser.run("return document.getElementById('uptime').textContent")?;
    browser.wait_for(&format!("document.getElementById('uptime').textContent !== {uptime}"))?;
    assert_eq!(browser.run("return document.getElementById('name').textContent")?, "pxtr");
    let deadline = Instant::now() + PATIENCE;
    // A packet for a site, and its RLOC is there; one from a source that is none is dropped, and it says why.
    while browser.run("return document.querySelectorAll('.rloc').length")? == 0 {
        net.talk_to_sites(3)?;
        thread::sleep(Duration::from_millis(200));
        assert!(Instant::now() < deadline, "no RLOC");
    }
    browser.wait_for("document.querySelector('.rloc').textContent.includes('198.51.100.11')")?;
    browser.wait_for("document.querySelector('.rloc .state').textContent === 'up'")?;
    browser.wait_for("/\\d ms/.test(document.querySelector('.rloc .rtt').textContent)")?;
    browser.wait_for("document.getElementById('migration').textContent.includes('PITR')")?;
    browser.wait_for("document.querySelectorAll('#chart-flow .lines path').length === 4")
}

/// Ten thousand entries: all are there, few of them on the page, and it scrolls.
fn shows_many(browser: &Browser<'_>) -> io::Result<()> {
    browser.wait_for("document.getElementById('list').getAttribute('aria-rowcount') > 9999")?;
    let rows = browser.run("return document.querySelectorAll('.row.entry').length")?;
    assert!(rows.as_u64().is_some_and(|rows| rows < 60), "{rows}");
    let frames = browser.run_until(
        "const list = document.getElementById('list'); list.scrollIntoView(); const times = []; let before = performance.now(); let n = 0; \
         const step = now => { times.push(now - before); before = now; n += 1; list.scrollTop = (list.scrollHeight - list.clientHeight) * n / 120; \
         if (n < 120) requestAnimationFrame(step); else done(times.slice(1).sort((a, b) => a - b)); }; requestAnimationFrame(step);",
    )?;
    let frames: Vec<f64> = serde_json::from_value(frames).map_err(io::Error::other)?;
    let of = |percent: usize| frames[(frames.len() - 1) * percent / 100];
    println!(
        "frames while scrolling: median {:.0} ms, 95 % {:.0} ms, worst {:.0} ms",
        of(50),
        of(95),
        of(100)
    );
    assert!(of(50) < 100.0, "{frames:?}");
    browser.run("document.getElementById('list').scrollTop = 1e9")?;
    browser.wait_for("[...document.querySelectorAll('.row.entry')].some(row => !row.hidden && row.textContent.includes('2001:db8:e000:270f::/64'))")?;

    // Looked for, and found by the daemon.
    let search = |text: &str| {
        browser.run(&format!(
            "const q = document.getElementById('q'); q.value = '{text}'; q.dispatchEvent(new Event('input')); return 0"
        ))
    };
    search("2001:db8:e000:1234::9")?;
    browser
        .wait_for("document.getElementById('list-sum').textContent.startsWith('1 found of 10,')")?;
    browser.run("document.querySelector('.row.entry').click()")?;
    browser.wait_for("document.getElementById('details').textContent.includes('198.51.100.11')")?;
    search("rloc 198.51.100.11")?;
    browser.wait_for("document.getElementById('list').getAttribute('aria-rowcount') > 9999")?;
    search("nowhere to be found")?;
    browser.wait_for("document.getElementById('list-sum').textContent.startsWith('0 found')")?;
    search("")?;
    browser.wait_for("document.getElementById('list').getAttribute('aria-rowcount') > 9999")
}

/// In the light and in the dark, on large screens and small ones, text stands out from what is behind it; nothing is wider than the screen.
fn is_readable(browser: &Browser<'_>) -> io::Result<()> {
    const CONTRAST: &str = "
        const canvas = document.createElement('canvas'); canvas.width = canvas.height = 1;
        const pen = canvas.getContext('2d', { willReadFrequently: true });
        const parse = color => { pen.clearRect(0, 0, 1, 1); pen.fillStyle = color; pen.fillRect(0, 0, 1, 1); return pen.getImageData(0, 0, 1, 1).data; };
        const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [.2126, .7152, .0722][i], 0);
        const back = node => { for (let n = node; n; n = n.parentElement) { const c = parse(getComputedStyle(n).backgroundColor); if (c[3] > 250) return c; } return [255, 255, 255]; };
        const bad = [];
        for (const node of document.querySelectorAll('body *')) {
            const own = [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim());
            if (!own || !node.getClientRects().length || ['SCRIPT', 'STYLE'].includes(node.tagName) || node.closest('.skip')) continue;
            const style = getComputedStyle(node);
            const [a, b] = [light(parse(node instanceof SVGElement ? style.fill : style.color)), light(back(node))];
            const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
            if (ratio < 4.5) bad.push(`${ratio.toFixed(2)} ${node.tagName}.${node.getAttribute('class')} ${node.textContent.slice(0, 30)}`);
        }
        return bad;";
    let mut backs = Vec::new();
    for (theme, width) in [("light", 1440), ("dark", 1440), ("light", 400), ("dark", 400)] {
        browser.look(theme, width)?;
        thread::sleep(Duration::from_millis(1_200));
        let faint = browser.run(CONTRAST)?;
        assert_eq!(faint, Value::Array(Vec::new()), "{theme}, {width} pixels wide");
        let beyond = browser.run("return document.documentElement.scrollWidth - innerWidth")?;
        assert!(beyond.as_i64().is_some_and(|beyond| beyond <= 0), "{theme}, {width}: {beyond}");
        backs.push(
            browser.run("return getComputedStyle(document.documentElement).backgroundColor")?,
        );
    }
    assert_ne!(backs[0], backs[1]);
    let unnamed = browser.run(
        "return [...document.querySelectorAll('button, input, [role=img], section')].filter(n => !n.hidden && !(n.textContent.trim() || n.ariaLabel || n.getAttribute('aria-labelledby'))).map(n => n.outerHTML.slice(0, 100))",
    )?;
    assert_eq!(unnamed, Value::Array(Vec::new()), "everything has a name for those who hear it");
    browser.look("light", 1440)
}

/// The daemon goes, and comes again: the page says so, and goes on by itself.
fn survives(browser: &Browser<'_>, net: &Net, gateway: &mut Daemon) -> io::Result<()> {
    browser.run("window.same = true")?;
    gateway.signal(Signal::SIGTERM)?;
    gateway.wait()?;
    browser.wait_for("document.getElementById('link').textContent.startsWith('reconnecting')")?;
    *gateway = net.gateway()?;
    let begun = Instant::now();
    browser.wait_for("document.getElementById('link').textContent.startsWith('live')")?;
    println!("live again {} ms after the daemon", begun.elapsed().as_millis());
    browser.wait_for("document.getElementById('list').getAttribute('aria-rowcount') < 9999")?;
    assert_eq!(browser.run("return window.same")?, true, "the page was not loaded anew");
    let refused: Vec<String> = browser.console()?;
    assert!(refused.iter().all(|line| line.contains("ERR_")), "{refused:?}");
    Ok(())
}

/// Names that others choose are text.
fn takes_names_as_text(browser: &Browser<'_>) -> io::Result<()> {
    browser.visit(OTHER_PAGE)?;
    browser.wait_for(
        "document.querySelector('.rloc .where')?.textContent.startsWith('<img src=x onerror=')",
    )?;
    assert_eq!(browser.run("return document.querySelectorAll('img').length")?, 0);
    let title = browser.run("return document.title")?;
    assert!(title.as_str().is_some_and(|title| title.ends_with("ms · Isthmus")), "{title}");
    assert_eq!(browser.console()?, Vec::<String>::new());
    Ok(())
}

/// Another site, in the same browser, gets nothing; neither does a name that it lets point here.
fn refuses_others(browser: &Browser<'_>, net: &Net) -> io::Result<()> {
    let listener = net.native.run(|| TcpListener::bind("127.0.0.1:8099"))??;
    let server = thread::spawn(move || {
        for stream in listener.incoming().take(8).flatten() {
            let _ = serve_evil(stream);
        }
    });
    browser.visit("http://127.0.0.1:8099/")?;
    let got = browser.run_until(
        "const url = 'http://127.0.0.1:8043/'; const found = []; const tries = []; \
         const attempt = (name, promise) => tries.push(promise.then(what => { if (what) found.push(`${name}: ${what}`); }, () => {})); \
         for (const path of ['', 'api/live', 'api/map-cache', 'api/history?counters=core_in_packets']) \
           for (const mode of ['cors', 'no-cors']) \
             attempt(`${mode} ${path}`, fetch(url + path, { mode, signal: AbortSignal.timeout(3000) }).then(async answer => (await answer.text()) || (answer.ok ? 'ok' : ''))); \
         attempt('post', fetch(url + 'api/live', { method: 'POST', mode: 'no-cors', body: 'x' }).then(async answer => (await answer.text()))); \
         attempt('events', new Promise(tell => { const source = new EventSource(url + 'api/live'); source.onmessage = () => tell('a message'); source.onerror = () => tell(''); })); \
         attempt('script', new Promise(tell => { const node = document.createElement('script'); node.src = url + 'api/map-cache'; node.onload = () => tell('loaded'); node.onerror = () => tell(''); document.body.append(node); })); \
         attempt('frame', new Promise(tell => { const node = document.createElement('iframe'); node.src = url; node.onload = () => { try { tell(node.contentDocument?.body?.innerText ?? ''); } catch { tell(''); } }; document.body.append(node); })); \
         Promise.all(tries).then(() => done(found));",
    )?;
    assert_eq!(got, Value::Array(Vec::new()));
    browser.visit("http://evil.example:8043/")?;
    let said = browser.run("return document.body.innerText")?;
    assert!(
        said.as_str().is_some_and(|said| said.starts_with("not the name of this page")),
        "{said}"
    );
    drop(server);
    Ok(())
}

fn serve_evil(mut stream: TcpStream) -> io::Result<()> {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request)?;
    let page = "<!doctype html><title>evil</title><body>evil</body>";
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
        page.len()
    )
}
