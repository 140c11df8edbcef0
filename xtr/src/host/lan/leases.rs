//! The leases of a DHCP server on this host: ISC dhcpd's file (both families) and dnsmasq's.
//!
//! A lease that is new, or renewed, says that its host is here: it has just talked to the server. One that was there before we looked
//! says only that the host once was.
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;

/// How often files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// News that wait to be taken.
const UNREAD: usize = 4;
/// A larger file is not read to its end.
const MAX_OCTETS: u64 = 16 << 20;

/// What changed in a file of leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Leases that were in the file when it was read for the first time.
    pub found: Vec<IpAddr>,
    /// Leases that are new or renewed.
    pub granted: Vec<IpAddr>,
}

/// A file of leases that is read again when it changes.
#[derive(Debug)]
pub struct LeaseFile {
    path: PathBuf,
    /// Time of its last change and length when it was read last.
    version: Option<(SystemTime, u64)>,
    /// What is written of each active lease; `None` until the file was read.
    known: Option<BTreeMap<IpAddr, String>>,
}

impl LeaseFile {
    /// A file that was not read yet; it need not exist.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), version: None, known: None }
    }

    /// Reads the file if it changed.
    ///
    /// # Errors
    /// What the system said; a file that does not exist is an empty one.
    pub fn poll(&mut self) -> io::Result<News> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.known.get_or_insert_default();
                return Ok(News::default());
            }
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        let version = (metadata.modified()?, metadata.len());
        if self.version == Some(version) {
            return Ok(News::default());
        }
        let mut octets = Vec::new();
        file.take(MAX_OCTETS).read_to_end(&mut octets)?;
        self.version = Some(version);
        Ok(self.update(parse(&String::from_utf8_lossy(&octets))))
    }

    fn update(&mut self, now: BTreeMap<IpAddr, String>) -> News {
        let Some(before) = self.known.take() else {
            let found = now.keys().copied().collect();
            self.known = Some(now);
            return News { found, granted: Vec::new() };
        };
        let is_new = |(address, written): &(&IpAddr, &String)| before.get(address) != Some(written);
        let granted = now.iter().filter(is_new).map(|(address, _)| *address).collect();
        self.known = Some(now);
        News { found: Vec::new(), granted }
    }
}

/// Reads the files again and again, in a thread of their own: a disk that hangs must not hold up whoever follows hosts. It ends with the
/// receiver.
///
/// # Errors
/// The system has no thread for it.
pub fn follow(files: Vec<LeaseFile>) -> io::Result<mpsc::Receiver<io::Result<News>>> {
    let (sender, receiver) = mpsc::channel(UNREAD);
    if !files.is_empty() {
        let name = "leases".to_owned();
        thread::Builder::new().name(name).spawn(move || read_all(files, &sender))?;
    }
    Ok(receiver)
}

fn read_all(mut files: Vec<LeaseFile>, sender: &mpsc::Sender<io::Result<News>>) {
    while !sender.is_closed() {
        for file in &mut files {
            let news = file.poll();
            if !matches!(&news, Ok(news) if *news == News::default())
                && sender.blocking_send(news).is_err()
            {
                return;
            }
        }
        thread::sleep(INTERVAL);
    }
}

/// The active leases, each with what is written of it, whichever server wrote the file. What is not understood is passed over.
fn parse(text: &str) -> BTreeMap<IpAddr, String> {
    let is_dnsmasq = |line: &str| dnsmasq(line).is_some() || line.starts_with("duid ");
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    if first.is_some_and(is_dnsmasq) {
        return text.lines().filter_map(dnsmasq).collect();
    }
    isc(text)
}

/// `EXPIRY MAC ADDRESS NAME CLIENT-ID`, or for IPv6 `EXPIRY IAID ADDRESS NAME DUID`.
fn dnsmasq(line: &str) -> Option<(IpAddr, String)> {
    let mut words = line.split_whitespace();
    let expiry: u64 = words.next()?.parse().ok()?;
    let owner = words.next()?;
    let address = words.next()?.parse().ok()?;
    words.next()?;
    Some((address, format!("{expiry} {owner}")))
}

/// Blocks `lease ADDRESS { .. }` and, in blocks of IPv6, `iaaddr ADDRESS { .. }`; the last one of an address counts.
fn isc(text: &str) -> BTreeMap<IpAddr, String> {
    let mut leases = BTreeMap::new();
    let mut open: Option<(IpAddr, usize)> = None;
    let mut depth = 0usize;
    let mut statement: Vec<&str> = Vec::new();
    let mut written = String::new();
    let mut active = true;
    for word in (Words { rest: text }) {
        match word {
            "{" => {
                depth += 1;
                let address = match statement.as_slice() {
                    ["lease" | "iaaddr", address] => address.parse().ok(),
                    _ => None,
                };
                if let Some(address) = address.filter(|_| open.is_none()) {
                    (open, active) = (Some((address, depth)), true);
                    written.clear();
                }
                statement.clear();
            }
            ";" => {
                match statement.as_slice() {
                    ["binding", "state", state] => active = *state == "active",
                    ["starts" | "ends" | "cltt", ..] if open.is_some() => {
                        written.push_str(&statement.join(" "));
                        written.push(';');
                    }
                    _ => {}
                }
                statement.clear();
            }
            "}" => {
                if let Some((address, _)) = open.filter(|(_, at)| *at == depth) {
                    if active {
                        leases.insert(address, std::mem::take(&mut written));
                    } else {
                        leases.remove(&address);
                    }
                    open = None;
                }
                depth = depth.saturating_sub(1);
                statement.clear();
            }
            word => statement.push(word),
        }
    }
    leases
}

/// The words of an ISC file: punctuation, strings with their quotes, and everything else; comments are left out.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        loop {
            self.rest = self.rest.trim_start();
            let Some(comment) = self.rest.strip_prefix('#') else { break };
            self.rest = comment.find('\n').map_or("", |end| &comment[end..]);
        }
        let first = self.rest.chars().next()?;
        let end = match first {
            '{' | '}' | ';' => 1,
            '"' => {
                let mut escaped = false;
                let end = self.rest[1..].char_indices().find(|(_, character)| {
                    let is_end = *character == '"' && !escaped;
                    escaped = *character == '\\' && !escaped;
                    is_end
                });
                end.map_or(self.rest.len(), |(at, _)| at + 2)
            }
            _ => {
                let is_end = |character: char| {
                    character.is_whitespace() || matches!(character, '{' | '}' | ';' | '"' | '#')
                };
                self.rest.find(is_end).unwrap_or(self.rest.len())
            }
        };
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DHCPD: &str = r#"
# The format of this file is documented in the dhcpd.leases(5) manual page.
authoring-byte-order little-endian;
server-duid "\000\001{\"\000";

lease 172.16.4.7 {
  starts 1 2026/11/23 09:00:00;
  ends 1 2026/11/23 21:00:00;
  binding state active;
  next binding state free;
  hardware ethernet 52:54:00:12:34:56;
  uid "\001RT\000{;}4V";
  client-hostname "vm";
}
lease 172.16.4.8 {
  starts 1 2026/11/23 09:00:00;
  binding state active;
  on expiry { set x = "}"; }
}
lease 172.16.4.8 {
  starts 1 2026/11/23 09:00:00;
  ends 1 2026/11/23 10:00:00;
  binding state free;
}
ia-na "\001\000" {
  cltt 1 2026/11/23 09:00:00;
  iaaddr 2001:db8:e004::7 {
    binding state active;
    preferred-life 300;
    ends 1 2026/11/23 21:00:00;
  }
}
"#;

    const DNSMASQ: &str = "1795424400 52:54:00:12:34:56 172.16.4.7 vm 01:52:54:00:12:34:56\n\
        0 52:54:00:12:34:57 172.16.4.8 * *\n\
        duid 00:01:00:01:2e\n\
        1795424400 1194932 2001:db8:e004::7 vm 00:01:00:01\n";

    fn addresses(text: &str) -> Vec<String> {
        parse(text).keys().map(ToString::to_string).collect()
    }

    #[test]
    fn active_leases_of_dhcpd_are_read() {
        assert_eq!(addresses(DHCPD), ["172.16.4.7", "2001:db8:e004::7"]);
    }

    #[test]
    fn leases_of_dnsmasq_are_read() {
        assert_eq!(addresses(DNSMASQ), ["172.16.4.7", "172.16.4.8", "2001:db8:e004::7"]);
        assert_eq!(addresses("duid 00:01\n1 2 2001:db8::1 * 00\n"), ["2001:db8::1"]);
    }

    #[test]
    fn what_is_no_lease_is_passed_over() {
        for text in ["", "lease", "lease x {", "lease 1.2.3.4 {", "}}}", "1795424400 a b c", "\""] {
            assert!(parse(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn dy_01_only_a_lease_granted_while_we_look_says_that_its_host_is_here() {
        let directory = std::env::temp_dir().join(format!("isthmus-leases-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let path = directory.join("dhcpd.leases");
        let mut file = LeaseFile::new(&path);
        std::fs::write(&path, DHCPD).expect("written");
        let first = file.poll().expect("read");
        assert_eq!((first.found.len(), first.granted.len()), (2, 0));
        assert_eq!(file.poll().expect("read"), News::default(), "nothing changed");
        let renewed = DHCPD.to_owned()
            + "lease 172.16.4.7 { starts 1 2026/11/23 15:00:00; binding state active; }\n\
               lease 172.16.4.9 { starts 1 2026/11/23 15:00:00; binding state active; }\n";
        std::fs::write(&path, renewed).expect("written");
        let granted = file.poll().expect("read").granted;
        assert_eq!(granted, ["172.16.4.7", "172.16.4.9"].map(|a| a.parse::<IpAddr>().unwrap()));
        std::fs::remove_dir_all(&directory).expect("removed");
        assert_eq!(file.poll().expect("no file is no error"), News::default());
    }

    #[test]
    fn a_file_that_appears_later_holds_new_leases() {
        let mut file = LeaseFile::new(Path::new("/nonexistent/dhcpd.leases"));
        assert_eq!(file.poll().expect("no file is no error"), News::default());
        assert_eq!(file.update(parse(DNSMASQ)).granted.len(), 3);
    }

    #[tokio::test]
    async fn dy_01_files_of_leases_are_read_off_the_loop_as_long_as_anybody_wants_them() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("dnsmasq.leases");
        std::fs::write(&path, DNSMASQ).expect("written");
        let broken = LeaseFile::new(directory.path());
        let mut news = follow(vec![LeaseFile::new(&path), broken]).expect("a thread");
        assert_eq!(news.recv().await.expect("read").expect("leases").found.len(), 3);
        assert!(news.recv().await.expect("read").is_err(), "a directory is no file");
        assert!(follow(Vec::new()).expect("none").recv().await.is_none());
    }

    proptest! {
        #[test]
        fn no_file_makes_the_parser_panic(text in "(lease |iaaddr |[0-9.:]{1,8}|[{};\"#\\\\\n a-z])*") {
            parse(&text);
        }

        #[test]
        fn no_octets_make_the_parser_panic(octets: Vec<u8>) {
            parse(&String::from_utf8_lossy(&octets));
        }
    }
}
