//! Routes and rules that are gone come back: network managers flush what they do not know, and the kernel takes routes out with a TUN that
//! is set down.
use super::{Routing, netlink_error};
use std::io;

/// Routes and rules looked at in one go.
const AT_ONCE: usize = 64;

impl Routing {
    /// Puts back those of the next routes and rules that are not in the kernel any more; how many that were. What is there is not touched,
    /// so nobody is told of a change.
    ///
    /// # Errors
    /// What the kernel refused; the next call goes on behind it.
    pub async fn mend(&mut self) -> io::Result<usize> {
        let all = self.rules.len() + self.table.len() + self.announced.len();
        let mut mended = 0;
        for _ in 0..all.min(AT_ONCE) {
            let at = self.turn % all;
            self.turn = at + 1;
            mended += usize::from(self.mend_one(at).await?);
        }
        Ok(mended)
    }

    /// In the order in which they were installed: what is not to be taken is refused before anything is announced.
    async fn mend_one(&self, at: usize) -> io::Result<bool> {
        let added = if let Some(rule) = self.rules.get(at) {
            let mut request = self.handle.rule().add();
            *request.message_mut() = rule.clone();
            request.execute().await
        } else {
            let mut routes = self.table.iter().chain(&self.announced);
            let Some(route) = routes.nth(at - self.rules.len()) else { return Ok(false) };
            self.handle.route().add(route.clone()).execute().await
        };
        match added {
            Ok(()) => Ok(true),
            Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code() == -libc::EEXIST => {
                Ok(false)
            }
            Err(error) => Err(netlink_error("put back a route or rule", &error)),
        }
    }
}
