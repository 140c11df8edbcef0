//! What the kernel says of a socket's receive queue, in /proc/net/udp and udp6.

use std::fs;
use std::os::fd::AsFd;

use nix::sys::stat::fstat;

use super::sockets::Bound;

/// Datagrams dropped since the sockets exist for want of room in their receive queues; 0 where the kernel does not say.
pub(super) fn receive_drops(sockets: &[Bound]) -> u64 {
    let table = |v6| fs::read_to_string(if v6 { "/proc/net/udp6" } else { "/proc/net/udp" });
    let tables = [table(false), table(true)];
    sockets
        .iter()
        .filter_map(|bound| {
            let inode = fstat(bound.socket.as_fd()).ok()?.st_ino;
            let table = tables[usize::from(bound.local.is_ipv6())].as_ref().ok()?;
            drops_of(inode, table)
        })
        .sum()
}

/// The last column of the line with this inode, the tenth column.
fn drops_of(inode: u64, table: &str) -> Option<u64> {
    const INODE: usize = 9;
    let inode = inode.to_string();
    let line = table.lines().find(|l| l.split_ascii_whitespace().nth(INODE) == Some(&inode))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::drops_of;

    #[test]
    fn drops_are_read_from_the_line_of_the_socket() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
             79: 0100007F:10F6 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1234 2 0000000000000000 0\n\
             80: 0200007F:10F6 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 77 2 0000000000000000 5012\n";
        assert_eq!(drops_of(77, table), Some(5012));
        assert_eq!(drops_of(1234, table), Some(0));
        assert_eq!(drops_of(9, table), None);
    }
}
