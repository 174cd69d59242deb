// Sites around the core of the lab, with the routers in between and the nodes within.

// Nodes that are named in a site: where there are many sites, fewer in each.
const MAX_NODES_OF_A_SITE = 12;
const MAX_NODES_OF_MANY_SITES = 4;
const MANY_SITES = 8;

// Sites that are alike but for their number are drawn once.
function groupedSites(outcome) {
  const nodesOf = (site) => outcome.nodes.filter((node) => node.site === site.name);
  const groups = new Map();
  for (const site of outcome.sites) {
    const numbered = /^(.*)-\d+$/.exec(site.name);
    const key = numbered ? JSON.stringify([numbered[1], site.preset, site.words, site.routers, nodesOf(site).length]) : site.name;
    const group = groups.get(key) ?? { base: numbered?.[1], sites: [] };
    group.sites.push({ ...site, nodes: nodesOf(site) });
    groups.set(key, group);
  }
  return [...groups.values()].flatMap((group) => (group.sites.length > 2 ? [group] : group.sites.map((site) => ({ sites: [site] }))));
}

function siteCard(group, maxNodes) {
  const [first, last] = [group.sites[0], group.sites.at(-1)];
  const many = group.sites.length > 1;
  const nodes = many ? [] : first.nodes;
  const title = many ? `${first.name} … ${last.name}` : first.name;
  const addresses = many ? [...first.addresses.slice(0, 1), "…", ...last.addresses.slice(0, 1)] : first.addresses;
  const node = (one) => element("li", null, icon("host"), element("span", { class: "any-wrap" }, element("b", null, one.name), " ", element("span", { class: "mono muted" }, one.addresses.join(" "))));
  const manyNodes = many && first.nodes.length > 0
    ? element("li", null, icon("host"), element("span", { class: "any-wrap" }, element("b", null, `${first.nodes[0].name} … ${last.nodes.at(-1).name}`), ` (${plural(total(group.sites.map((site) => site.nodes.length)), "node", "nodes")})`))
    : null;
  const more = nodes.length - maxNodes;
  return element("div", { class: many ? "site many" : "site", role: "listitem" },
    element("header", null, element("h3", { class: "any-wrap" }, title), element("span", { class: "preset" }, first.preset), many ? element("strong", null, `× ${group.sites.length}`) : null),
    element("p", { class: "small muted any-wrap" }, first.words, element("span", { class: "unseen" }, `; routers in between: ${first.routers}`)),
    element("p", { class: "mono any-wrap" }, addresses.join("  ")),
    element("ul", null, nodes.slice(0, maxNodes).map(node), manyNodes, more > 0 ? element("li", null, `and ${more} more`) : null));
}

// The way from a site to the core, with the router of the site nearest to the site.
function wire(routers, coreIsLeft) {
  const names = Array.from({ length: routers }, (_, index) => (index === 0 ? "router" : "carrier"));
  const router = (name) => element("span", { class: "router" },
    shape("svg", { viewBox: "-20 -20 40 32", width: 40, height: 32 },
      shape("path", { d: "M-9 -8L-12 -18M9 -8L12 -18" }), shape("rect", { x: -17, y: -8, width: 34, height: 17, rx: 5 }),
      shape("path", { d: "M-11 1.5h8m-3-3l3 3l-3 3M11 -1.5h-8m3-3l-3 3l3 3" })),
    element("small", null, name));
  return element("div", { class: "wire", "aria-hidden": "true" }, (coreIsLeft ? names.reverse() : names).map(router));
}

function topologyCard(outcome) {
  const groups = groupedSites(outcome);
  const map = element("div", { class: "map", role: "list" });
  const everywhere = outcome.links.filter((link) => !link.between).map((link) => link.words);
  const core = element("div", { class: "core", role: "listitem" }, icon("core"), element("div", null, element("strong", null, "core"), everywhere.length > 0 ? element("p", { class: "small" }, everywhere.at(-1)) : null));
  const left = Math.ceil(groups.length / 2);
  const draw = () => {
    const narrow = matchMedia("(max-width: 820px)").matches;
    const rows = narrow ? groups.length : left;
    core.style.gridRow = `1 / span ${Math.max(rows, 1)}`;
    map.replaceChildren(core);
    groups.forEach((group, index) => {
      const coreIsLeft = narrow || index >= left;
      const row = narrow ? index : index % left;
      const [way, site] = [wire(group.sites[0].routers, coreIsLeft), siteCard(group, groups.length > MANY_SITES ? MAX_NODES_OF_MANY_SITES : MAX_NODES_OF_A_SITE)];
      const columns = narrow ? [2, 3] : coreIsLeft ? [4, 5] : [2, 1];
      [way, site].forEach((one, which) => { one.style.gridRow = row + 1; one.style.gridColumn = columns[which]; });
      map.append(way, site);
    });
  };
  draw();
  matchMedia("(max-width: 820px)").addEventListener("change", draw);
  const between = outcome.links.filter((link) => link.between);
  const links = element("dl", { class: "links small" }, between.map((link) => element("div", null, element("dt", null, `${link.between[0]} ↔ ${link.between[1]}`), element("dd", null, link.words))));
  return card("Topology", `${plural(outcome.sites.length, "site", "sites")} with ${plural(outcome.nodes.length, "node", "nodes")}, as they were at the beginning.`, map, between.length > 0 ? links : null);
}
