//! What the role's rules said of the packets before: packets come in trains, and the rules are a table lookup or two.
use mapping::eid::InstanceId;
use std::net::IpAddr;

/// A power of two: hosts that speak at a time; two flows of different hosts share a place now and then, and are asked for again.
const PLACES: usize = 64;

/// The answers that were given last, by what was asked. Right as long as the rules are the same.
#[derive(Debug)]
pub(super) struct Memo<K, V> {
    places: Box<[Option<(K, V)>]>,
}

impl<K: Question, V: Copy> Default for Memo<K, V> {
    fn default() -> Self {
        Self { places: vec![None; PLACES].into() }
    }
}

impl<K: Question, V: Copy> Memo<K, V> {
    /// The answer to `question`, from `ask` unless it is known. Refusals are not kept.
    #[inline]
    pub(super) fn get_or<E>(
        &mut self,
        question: K,
        ask: impl FnOnce() -> Result<V, E>,
    ) -> Result<V, E> {
        let place = &mut self.places[question.place() % PLACES];
        if let Some((known, answer)) = place
            && *known == question
        {
            return Ok(*answer);
        }
        let answer = ask()?;
        *place = Some((question, answer));
        Ok(answer)
    }

    /// The rules are others now.
    pub(super) fn forget(&mut self) {
        self.places.fill(None);
    }
}

/// What the rules are asked.
pub(super) trait Question: Copy + PartialEq {
    /// Where its answer is kept.
    fn place(&self) -> usize;
}

/// [`crate::policy::Policy::admit_native`]: source and destination.
impl Question for (IpAddr, IpAddr) {
    #[inline]
    fn place(&self) -> usize {
        place(self.0, self.1)
    }
}

/// [`crate::policy::Policy::admit_decapsulated`]: outer source, instance, source and destination.
impl Question for (IpAddr, InstanceId, IpAddr, IpAddr) {
    #[inline]
    fn place(&self) -> usize {
        place(self.2, self.3)
    }
}

#[inline]
fn place(source: IpAddr, destination: IpAddr) -> usize {
    let mixed =
        (word(source) ^ word(destination).rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize
}

#[inline]
fn word(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            (bits >> 64) as u64 ^ bits as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_are_asked_once_until_they_change_and_again_for_what_they_refused() {
        let mut memo = Memo::<(IpAddr, IpAddr), u8>::default();
        let question = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([198, 51, 100, 1]));
        assert_eq!(memo.get_or(question, || Err(1)), Err(1));
        assert_eq!(memo.get_or(question, || Ok::<_, u8>(7)), Ok(7));
        assert_eq!(memo.get_or(question, || Err(2)), Ok(7), "known");
        memo.forget();
        assert_eq!(memo.get_or(question, || Err(3)), Err(3));
    }

    #[test]
    fn a_host_in_the_place_of_another_is_not_taken_for_it() {
        let mut memo = Memo::<(IpAddr, IpAddr), u32>::default();
        let to = IpAddr::from([198, 51, 100, 1]);
        for turn in 0..2 {
            for host in 0..4 * PLACES as u32 {
                let question = (IpAddr::from(host.to_be_bytes()), to);
                let answer = memo.get_or(question, || Ok::<_, ()>(host));
                assert_eq!(answer, Ok(host), "turn {turn}");
            }
        }
    }
}
