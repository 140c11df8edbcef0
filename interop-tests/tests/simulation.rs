//! Thousands of sites in one thread under a virtual clock. `ISTHMUS_SIMULATION=full` is the full size, `middle` a fifth of the sites for half
//! the time, `small` what is run without the variable; `ISTHMUS_SIMULATION_SEED` runs a printed seed again.
use interop_tests::simulation::{Plan, Report, Resolutions, Restart, Weather, World, seed};
use std::time::Duration;

/// How large the storm is.
struct Size {
    sites: u32,
    correspondents: u32,
    /// Hosts that move between sites meanwhile: `ISTHMUS_SIMULATION_MOVERS` of them, none without the variable.
    movers: u32,
    duration: Duration,
}

impl Size {
    fn wanted() -> Self {
        let wanted = std::env::var("ISTHMUS_SIMULATION").unwrap_or_else(|_| "small".to_owned());
        let movers = std::env::var("ISTHMUS_SIMULATION_MOVERS").unwrap_or_default();
        let movers = movers.parse().unwrap_or(0);
        let (sites, correspondents, minutes) = match wanted.as_str() {
            "full" => (2_000, 100, 60),
            "middle" => (400, 50, 30),
            "small" => (60, 15, 10),
            other => panic!("ISTHMUS_SIMULATION={other}: full, middle or small"),
        };
        Self { sites, correspondents, movers, duration: Duration::from_secs(minutes * 60) }
    }
}

fn stormy(seed: u64, size: &Size) -> World {
    let quiet = Duration::from_secs(180);
    let plan = Plan {
        sites: size.sites,
        correspondents: size.correspondents,
        movers: size.movers,
        weather: Weather::FOUL,
        quiet,
        filled: quiet + (size.duration - quiet) / 2,
        ..Plan::new(seed)
    };
    let mut world = World::new(plan);
    world.storm(size.duration);
    world.run(size.duration);
    world
}

/// At least `percent` of the lookups found the mapping, by four standard deviations of that many lookups.
fn assert_found(resolutions: &Resolutions, percent: f64, what: &str) {
    let (total, failing) = (resolutions.total() as f64, 1.0 - percent / 100.0);
    let most = total * failing + 4.0 * (total * failing).sqrt();
    let failed = resolutions.unanswered + resolutions.negative;
    assert!(failed as f64 <= most, "{what}: {failed} of {total} failed, at most {most:.1} may");
}

fn assert_by_the_rules(report: &Report) {
    assert_eq!(report.never_registered, 0, "{report}");
    assert_eq!(report.violation_count, 0, "{report}");
}

#[test]
fn a_storm_of_loss_partitions_and_crashes_breaks_no_rule_and_passes() {
    let size = Size::wanted();
    let mut world = stormy(seed(1), &size);
    let report = world.report();
    println!("{report}");
    assert_by_the_rules(&report);
    assert_found(&report.proxied, 99.9, "answered by a Map-Server");
    assert_found(&report.through_etr, 98.5, "answered by an ETR");
    let pairs = (size.sites * size.correspondents) as usize;
    assert!(report.map_cache_entries > pairs * 9 / 10, "{report}");
    // All that fate broke is mended within three minutes; then two registrations, two probes and a negative entry's life.
    world.set_weather(Weather::FAIR);
    world.run(Duration::from_secs(10 * 60));
    let wrong = world.disagreements();
    assert!(wrong.is_empty(), "{} of {pairs}, such as {:#?}", wrong.len(), wrong.first());
    let astray = world.astray();
    assert!(astray.is_empty(), "{} hosts, such as {:#?}", astray.len(), astray.first());
    println!("hosts reached by a roundabout way: {:?}", world.roundabouts());
    assert_by_the_rules(&world.report());
    if let Some(memory) = peak_memory() {
        println!("peak memory: {memory}");
    }
}

/// A seed is the whole run.
#[test]
fn a_seed_runs_again_event_for_event() {
    let size = Size { sites: 24, correspondents: 8, movers: 4, duration: Duration::from_secs(400) };
    let digest = |seed| stormy(seed, &size).digest();
    let seed = seed(2);
    let first = digest(seed);
    assert_eq!(first, digest(seed));
    assert_ne!(first, digest(seed + 1));
}

/// A settled network in fair weather: everybody has everybody's mapping.
fn settled(seed: u64) -> World {
    let mut world = World::new(Plan::new(seed));
    world.run(Duration::from_secs(120));
    assert!(world.disagreements().is_empty(), "{:#?}", world.disagreements().first());
    world
}

/// How long it takes until nobody's packets go wrong, in steps of 50 ms.
fn convergence(world: &mut World, most: Duration) -> Duration {
    let start = world.now();
    while !world.disagreements().is_empty() {
        let taken = world.now() - start;
        assert!(
            taken < most,
            "{} are wrong after {taken:?}: {:?}",
            world.disagreements().len(),
            world.disagreements().first()
        );
        world.run(Duration::from_millis(50));
    }
    world.now() - start
}

#[test]
fn a_disaster_moves_whole_prefixes_and_every_correspondent_follows() {
    let mut world = settled(seed(3));
    // A third of all sites at once: a storm of SMRs.
    for site in world.multihomed().into_iter().step_by(2) {
        world.set_locator_set(site, &["b"]);
    }
    println!("all moved after {:?}", convergence(&mut world, Duration::from_secs(80)));
    for site in world.multihomed().into_iter().step_by(2) {
        world.set_locator_set(site, &["a"]);
    }
    println!("all back after {:?}", convergence(&mut world, Duration::from_secs(80)));
    assert_by_the_rules(&world.report());
}

#[test]
fn a_locator_that_goes_dead_is_found_by_probing_and_comes_back() {
    let mut world = settled(seed(4));
    let sites: Vec<u32> = world.multihomed().into_iter().step_by(3).collect();
    for &site in &sites {
        world.silence(site, 0, true);
    }
    println!("dead locators avoided after {:?}", convergence(&mut world, Duration::from_secs(80)));
    for &site in &sites {
        world.silence(site, 0, false);
    }
    println!("used again after {:?}", convergence(&mut world, Duration::from_secs(300)));
    for &site in &sites {
        world.set_carrier(site, 0, false);
    }
    println!("lost carriers known after {:?}", convergence(&mut world, Duration::from_secs(80)));
    for &site in &sites {
        world.set_carrier(site, 0, true);
    }
    println!("carriers back after {:?}", convergence(&mut world, Duration::from_secs(300)));
    assert_by_the_rules(&world.report());
}

#[test]
fn hosts_that_move_are_followed_and_no_packet_goes_in_a_circle() {
    let mut world = World::new(Plan { movers: 8, ..Plan::new(seed(6)) });
    world.run(Duration::from_secs(120));
    world.let_hosts_move(Duration::from_secs(600));
    // Who asked between two registrations knows for a minute that there is nobody (RFC 9301 §8.1); who has a mapping that is out of date, and
    // sends nothing, finds out with the next probe, and doubts it three quarters of a minute later.
    world.run(Duration::from_secs(600 + 240));
    let report = world.report();
    println!("{} moves, packets to the hosts: {:?}", report.host_moves, report.to_hosts);
    let astray = world.astray();
    assert!(astray.is_empty(), "{} hosts, such as {:#?}", astray.len(), astray.first());
    println!("reached by a roundabout way: {:?}", world.roundabouts());
    assert!(report.host_moves > 50, "{report}");
    assert_eq!(report.to_hosts.get("went in a circle"), None, "{report}");
    assert_eq!(report.never_registered, 0, "{report}");
}

#[test]
fn map_servers_and_xtrs_that_crash_leave_nothing_wrong_behind() {
    let mut world = settled(seed(5));
    for how in [Restart::Kept, Restart::Empty] {
        for server in 0..2 {
            world.stop_server(server);
            world.run(Duration::from_secs(30));
            assert!(world.disagreements().is_empty(), "traffic goes on");
            world.start_server(server, how);
            world.run(Duration::from_secs(90));
            assert!(
                world.disagreements().is_empty(),
                "{how:?}: {:?}",
                world.disagreements().first()
            );
        }
    }
    for site in [0, 7, 8, 31] {
        world.stop_site(site);
    }
    world.run(Duration::from_secs(75));
    for site in [0, 7, 8, 31] {
        world.start_site(site);
    }
    println!("all right after {:?}", convergence(&mut world, Duration::from_secs(130)));
    assert_by_the_rules(&world.report());
}

fn peak_memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().to_owned())
}
