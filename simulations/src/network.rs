//! A network of sites around a core of routers, each host and router in a namespace or a container of its own.
//!
//! ```text
//! core         routers on TUN devices, in this process: ways, rates, losses, counts and captures
//! line, site   addresses, and what stands between hosts and the core
//! rules        what routers do, for nftables           script   how places are set up, for `ip`
//! process      whether those whose leftovers are swept still run
//! namespaces   places of this process, each of an `engine`: bare, or in a container of an `image`
//! standing     a site that stands, and the addresses in it
//! Network      builds sites, plugs hosts in, and changes both while they run
//! ```
//! ```text
//!  server ─ wan ─────────────────┐                     a host at the end of its line
//!  laptop ─ eth0  lan ─ r ─ wan ─┤                     hosts behind a home router
//!  phone ─ eth0   lan ─ r ─ wan  lan ─ c ─ wan ─ core  hosts behind two
//! ```
//!
//! What it is not: the internet. Routers are Linux, with what nftables can do. What runs in it is others'.

pub(crate) mod core;
mod engine;
mod image;
mod line;
mod namespaces;
mod process;
mod rules;
mod script;
mod site;
mod standing;

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use self::{
    core::{Attachment, Core, LineId, Way},
    namespaces::Namespaces,
    rules::{Nat, firewall, miniupnpd_conf},
    standing::Standing,
};
pub(crate) use self::{
    engine::Engine,
    image::{
        FAKETIME, Image, KEYFERRY as KEYFERRY_IN_IMAGE, KEYFERRY_SIM as SIM_IN_IMAGE, Options as ImageOptions,
        make as make_image,
    },
    line::{BACKBONE, Line, lan},
    namespaces::{Lacking, become_root, end_tidily_on_signals, ensure_possible, sweep_dead},
    process::is_dead,
    rules::{Filtering, Mapping, Refusal},
    site::{Ipv4, Ipv6, Properties},
};

/// Sites, and the hosts that are plugged into them. All goes when it is dropped.
pub(crate) struct Network {
    // Dropped in this order: what runs in namespaces ends before they go, and they before the core.
    daemons: Mutex<HashMap<String, Child>>,
    namespaces: Namespaces,
    core: Core,
    parts: Mutex<Parts>,
    /// Whether each packet goes by itself, as it has to on a rough way.
    is_segmented: bool,
    /// Whether this kernel has switches. Without them, multicast does not pass between the hosts of a site.
    has_switches: bool,
    dir: PathBuf,
}

#[derive(Default)]
struct Parts {
    sites: HashMap<String, Standing>,
    hosts: HashMap<String, Option<Plugged>>,
}

/// Where a host is.
#[derive(Clone)]
struct Plugged {
    site: String,
    number: usize,
}

impl Network {
    /// Starts one without sites. Files of routers go to `dir`. It is segmented where a way or a line is rough, or will be.
    pub(crate) fn start(engine: Engine, way: Way, is_segmented: bool, dir: PathBuf) -> Result<Self> {
        fs::create_dir_all(&dir)?;
        let namespaces = Namespaces::new(engine);
        let has_switches = namespaces.has_switches();
        Ok(Self {
            daemons: Mutex::default(),
            namespaces,
            core: Core::start(way, BACKBONE)?,
            parts: Mutex::default(),
            is_segmented,
            has_switches,
            dir,
        })
    }

    /// The core, for its ways and counters.
    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// Where files of it are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether hosts of one site can be reached by multicast from each other.
    pub(crate) fn has_switches(&self) -> bool {
        self.has_switches
    }

    /// Builds a site, with its routers and without hosts. Public ones have their line with their host.
    pub(crate) fn add_site(&self, name: &str, properties: &Properties, line: Line) -> Result<()> {
        let mut standing = Standing { properties: properties.clone(), line, id: None, numbers: 0 };
        if !properties.is_public() {
            standing.id = self.build_routers(name, &standing).with_context(|| format!("site {name}"))?;
        }
        self.parts().sites.insert(name.to_owned(), standing);
        Ok(())
    }

    /// Plugs a host in, which is made if there is none of that name.
    pub(crate) fn plug(&self, host: &str, site: &str) -> Result<()> {
        let mut standing = self.standing(site)?;
        let number = standing.numbers;
        ensure!(number < lan::MOST_HOSTS, "site {site} has no address left");
        if !self.parts().hosts.contains_key(host) {
            self.namespaces.script(&script::new_place(host))?;
            self.parts().hosts.insert(host.to_owned(), None);
        }
        standing.numbers += 1;
        if standing.properties.is_public() {
            standing.id = self.attach(host, &standing)?;
            let line = standing.line_of(number);
            self.namespaces.script(&script::wan(host, &line, &standing.properties, true))?;
        } else {
            self.plug_inside(host, site, &standing, number).with_context(|| format!("{host} at {site}"))?;
        }
        let mut parts = self.parts();
        parts.sites.insert(site.to_owned(), standing);
        parts.hosts.insert(host.to_owned(), Some(Plugged { site: site.to_owned(), number }));
        Ok(())
    }

    /// Pulls the cable of a host, which runs on.
    pub(crate) fn unplug(&self, host: &str) -> Result<()> {
        let plugged = self.plugged(host)?;
        let standing = self.standing(&plugged.site)?;
        let device = if standing.properties.is_public() { "wan" } else { "eth0" };
        self.namespaces.script(&format!("ip -n @{host} link del {device}\n"))?;
        let mut parts = self.parts();
        parts.hosts.insert(host.to_owned(), None);
        if standing.properties.is_public()
            && let Some(site) = parts.sites.get_mut(&plugged.site)
        {
            site.id = None;
        }
        Ok(())
    }

    /// Gives a host other addresses at the site where it is.
    pub(crate) fn readdress(&self, host: &str) -> Result<()> {
        let plugged = self.plugged(host)?;
        let mut standing = self.standing(&plugged.site)?;
        let number = standing.numbers;
        ensure!(number < lan::MOST_HOSTS, "site {} has no address left", plugged.site);
        let device = if standing.properties.is_public() { "wan" } else { "eth0" };
        let (old, new) = (standing.addresses(plugged.number), standing.addresses(number));
        let mut script = String::new();
        // First the old ones: with the first address of a network its others may go.
        for (address, prefix) in &old {
            script += &script::without_addr(host, device, format_args!("{address}/{prefix}"));
        }
        for (address, prefix) in &new {
            let nodad = if address.is_ipv6() { " nodad" } else { "" };
            script += &script::addr(host, device, format_args!("{address}/{prefix}{nodad}"));
        }
        for gateway in standing.gateways() {
            script += &script::default_route(host, gateway, device);
        }
        self.namespaces.script(&script)?;
        standing.numbers += 1;
        let mut parts = self.parts();
        parts.hosts.insert(host.to_owned(), Some(Plugged { number, ..plugged.clone() }));
        parts.sites.insert(plugged.site, standing);
        Ok(())
    }

    /// Has the routers of a site forget all connections and mappings. They pass nothing for so long before.
    pub(crate) fn restart_routers(&self, site: &str, down: Duration) -> Result<()> {
        let standing = self.standing(site)?;
        let routers = routers(site, &standing.properties);
        ensure!(!routers.is_empty(), "site {site} has no router");
        if !down.is_zero() {
            for router in &routers {
                self.namespaces.script(&format!(
                    "ip netns exec @{router} nft 'table inet down {{ chain all {{ type filter hook prerouting priority -300; drop; }}; \
                     chain own {{ type filter hook output priority -300; drop; }}; }}'\n"
                ))?;
            }
            thread::sleep(down);
        }
        // Loading the rules anew empties their maps, and takes the block away.
        let mut script = String::new();
        for router in &routers {
            script += &self.rules(router, &standing)?;
        }
        for router in &routers {
            script += &format!("ip netns exec @{router} conntrack -F 2>/dev/null\n");
        }
        self.namespaces.script(&script)?;
        self.restart_miniupnpd(site, &standing)
    }

    /// Has a site behave differently. Which families it has, and how many routers, stays.
    pub(crate) fn set_properties(&self, site: &str, properties: &Properties) -> Result<()> {
        let standing = Standing { properties: properties.clone(), ..self.standing(site)? };
        let mut script = String::new();
        let routers = routers(site, properties);
        for router in &routers {
            script += &self.rules(router, &standing)?;
        }
        if let Some(outermost) = routers.last().cloned().or_else(|| self.host_at(site)) {
            let state = if properties.uplink { "up" } else { "down" };
            script += &format!("ip -n @{outermost} link set wan mtu {} {state}\n", properties.mtu);
            if properties.uplink {
                script += &standing.wan_routes(&outermost);
            }
        }
        self.namespaces.script(&script)?;
        if let Some(id) = standing.id {
            self.core.set_rates(id, properties.up, properties.down);
        }
        self.restart_miniupnpd(site, &standing)?;
        self.parts().sites.insert(site.to_owned(), standing);
        Ok(())
    }

    /// Removes sites and hosts with all that runs in them.
    pub(crate) fn remove(&self, sites: &[&str], hosts: &[&str]) {
        let mut places: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut parts = self.parts();
        for site in sites {
            if let Some(standing) = parts.sites.remove(*site) {
                places.extend(routers(site, &standing.properties));
            }
        }
        for host in hosts {
            parts.hosts.remove(*host);
        }
        drop(parts);
        for place in &places {
            self.end_daemon(place);
        }
        self.namespaces.remove(&places.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// A command in a place, and in a folder there.
    pub(crate) fn command_in(&self, place: &str, folder: &Path, program: impl AsRef<OsStr>) -> Command {
        if self.root(place) == Path::new("/") {
            let mut command = self.namespaces.command(place, program);
            command.current_dir(folder);
            return command;
        }
        // The folder has to be found there.
        let mut command = self.namespaces.command(place, "sh");
        command.args(["-c", "cd \"$0\" && exec \"$@\""]).arg(folder).arg(program);
        command
    }

    /// A command in a place: a host by its name, the routers of a site as `SITE.router` and `SITE.carrier`.
    pub(crate) fn command(&self, place: &str, program: impl AsRef<OsStr>) -> Command {
        self.namespaces.command(place, program)
    }

    /// Where this process sees the files of a place.
    pub(crate) fn root(&self, place: &str) -> PathBuf {
        self.namespaces.root(place)
    }

    /// The line of a site, unless it has none just now.
    pub(crate) fn line(&self, site: &str) -> Option<LineId> {
        self.parts().sites.get(site)?.id
    }

    /// The addresses of a host where it is plugged in.
    pub(crate) fn addresses(&self, host: &str) -> Vec<IpAddr> {
        let Ok(plugged) = self.plugged(host) else { return Vec::new() };
        let Ok(standing) = self.standing(&plugged.site) else { return Vec::new() };
        standing.addresses(plugged.number).into_iter().map(|(address, _)| address).collect()
    }

    /// The addresses by which everybody sees a site.
    pub(crate) fn outer_addresses(&self, site: &str) -> Vec<IpAddr> {
        let Ok(Standing { properties, line, .. }) = self.standing(site) else { return Vec::new() };
        let v4 = properties.has_v4().then_some(IpAddr::from(line.v4));
        let v6 = properties.has_v6().then_some(IpAddr::from(line.v6));
        v4.into_iter().chain(v6).collect()
    }

    fn build_routers(&self, site: &str, standing: &Standing) -> Result<Option<LineId>> {
        let Standing { properties, line, .. } = standing;
        let routers = routers(site, properties);
        let (Some(home), Some(outermost)) = (routers.first(), routers.last()) else { bail!("a site without routers") };
        let mut setup = String::new();
        for router in &routers {
            setup += &(script::new_place(router) + &script::forwarding(router));
        }
        if self.has_switches {
            setup += &(script::switch(home, "lan") + &standing.inner_addrs(home));
        }
        if home != outermost {
            setup += &script::cable(outermost, "lan", home, "wan");
            setup += &script::addr(outermost, "lan", format_args!("{}/24", lan::CARRIER));
            setup += &script::addr(home, "wan", format_args!("{}/24", lan::SUBSCRIBER));
            setup += &script::default_route(home, lan::CARRIER.into(), "wan");
        }
        for router in &routers {
            setup += &self.rules(router, standing)?;
        }
        self.namespaces.script(&setup)?;
        if !properties.uplink {
            return Ok(None);
        }
        let id = self.attach(outermost, standing)?;
        self.namespaces.script(&script::wan(outermost, line, properties, true))?;
        Ok(id)
    }

    fn plug_inside(&self, host: &str, site: &str, standing: &Standing, number: usize) -> Result<()> {
        let router = router_of(site);
        let device = if self.has_switches || number > 0 { format!("lan{number}") } else { "lan".to_owned() };
        let mut setup = script::cable(&router, &device, host, "eth0");
        if self.has_switches {
            setup += &script::join_switch(&router, &device, "lan");
        } else if number == 0 {
            setup += &standing.inner_addrs(&router);
        } else {
            let v4 = lan::host(number);
            setup += &format!("ip -n @{router} route add {v4} dev {device} src {}\n", lan::ROUTER);
            setup += &(script::routed_inside(&router, "lan") + &script::routed_inside(&router, &device));
        }
        for (address, prefix) in standing.addresses(number) {
            let nodad = if address.is_ipv6() { " nodad" } else { "" };
            setup += &script::addr(host, "eth0", format_args!("{address}/{prefix}{nodad}"));
        }
        for gateway in standing.gateways() {
            setup += &script::default_route(host, gateway, "eth0");
        }
        self.namespaces.script(&setup)?;
        if standing.properties.upnp { self.start_miniupnpd(&router) } else { Ok(()) }
    }

    fn attach(&self, place: &str, standing: &Standing) -> Result<Option<LineId>> {
        let device = self.namespaces.tun(place)?;
        if self.is_segmented {
            // Segments by the dozen in one packet would share one fate.
            self.namespaces.script(&format!("ip -n @{place} link set wan gso_max_segs 1\n"))?;
        }
        let Standing { properties: Properties { up, down, .. }, line, .. } = standing;
        let attachment = Attachment { device, networks: line.networks(), edge: line.edge, up: *up, down: *down };
        self.core.attach(attachment).map(Some)
    }

    /// Writes the rules of a router to a file and gives the lines of a script that load them, in place of those before.
    fn rules(&self, router: &str, standing: &Standing) -> Result<String> {
        let Standing { properties, line, .. } = standing;
        let rules = match properties.ipv4 {
            Ipv4::None => firewall(properties.refusal, &properties.outward_ports),
            _ => Nat {
                mapping: properties.mapping,
                filtering: properties.filtering,
                refusal: properties.refusal,
                hairpin: properties.hairpin.then_some(line.v4),
                outward_ports: &properties.outward_ports,
                lifetime_seconds: properties.forgets_after.as_secs().max(1),
                upnp: properties.upnp,
            }
            .rules(),
        };
        let file = self.dir.join(format!("{router}.nft"));
        fs::write(&file, format!("flush ruleset\n{rules}"))?;
        Ok(format!("ip netns exec @{router} nft -f '{}'\n", file.display()) + &script::tracking(router, properties))
    }

    fn start_miniupnpd(&self, router: &str) -> Result<()> {
        if self.daemons().contains_key(router) {
            return Ok(());
        }
        let (settings, pid) =
            (self.dir.join(format!("{router}.upnp.conf")), self.dir.join(format!("{router}.upnp.pid")));
        fs::write(&settings, miniupnpd_conf())?;
        self.namespaces.script(&format!("ip -n @{router} route replace 239.0.0.0/8 dev lan\n"))?;
        let log = fs::File::create(self.dir.join(format!("{router}.upnp.log")))?;
        let daemon = self
            .command(router, "miniupnpd")
            .arg("-d")
            .arg("-f")
            .arg(&settings)
            .arg("-P")
            .arg(&pid)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start miniupnpd (Debian: miniupnpd-nftables)")?;
        self.daemons().insert(router.to_owned(), daemon);
        Ok(())
    }

    /// It knows nothing any more of what it had mapped: its chains have been loaded anew.
    fn restart_miniupnpd(&self, site: &str, standing: &Standing) -> Result<()> {
        let router = router_of(site);
        self.end_daemon(&router);
        if standing.properties.upnp && standing.numbers > 0 { self.start_miniupnpd(&router) } else { Ok(()) }
    }

    fn end_daemon(&self, place: &str) {
        if let Some(mut daemon) = self.daemons().remove(place) {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    fn standing(&self, site: &str) -> Result<Standing> {
        self.parts().sites.get(site).cloned().with_context(|| format!("there is no site {site}"))
    }

    fn plugged(&self, host: &str) -> Result<Plugged> {
        let plugged = self.parts().hosts.get(host).cloned().flatten();
        plugged.with_context(|| format!("{host} is not plugged in anywhere"))
    }

    fn host_at(&self, site: &str) -> Option<String> {
        let parts = self.parts();
        let mut hosts = parts.hosts.iter();
        hosts.find(|(_, plugged)| plugged.as_ref().is_some_and(|at| at.site == site)).map(|(host, _)| host.clone())
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn daemons(&self) -> MutexGuard<'_, HashMap<String, Child>> {
        self.daemons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let places: Vec<String> = self.daemons().keys().cloned().collect();
        for place in places {
            self.end_daemon(&place);
        }
    }
}

/// The home router of a site that has one.
pub(crate) fn router_of(site: &str) -> String {
    format!("{site}.router")
}

/// The routers of a site, the one of its hosts first.
pub(crate) fn routers(site: &str, properties: &Properties) -> Vec<String> {
    let all = [router_of(site), format!("{site}.carrier")];
    all.into_iter().take(properties.routers()).collect()
}
