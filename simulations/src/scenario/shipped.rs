//! The scenarios that come with the program.

/// One file of `simulations/scenarios`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shipped {
    /// Its name, without `.toml`.
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
    /// Whether it is there for others to include.
    pub(crate) is_part: bool,
}

macro_rules! shipped {
    ($($name:literal),* ; parts $($part:literal),*) => {
        /// All of them.
        pub(crate) const ALL: &[Shipped] = &[
            $(Shipped { name: $name, text: include_str!(concat!("../../scenarios/", $name, ".toml")), is_part: false },)*
            $(Shipped { name: $part, text: include_str!(concat!("../../scenarios/", $part, ".toml")), is_part: true },)*
        ];
    };
}

shipped! {
    "two-homes",
    "office-and-hotel",
    "phone-and-home",
    "laptop-moves",
    "laptop-relayed",
    "routers-restart",
    "relay-dies",
    "three-seeders",
    "sharer-away",
    "lan-offline",
    "flash-crowd",
    "forgetful-nat",
    "ladder",
    "long-way",
    "many-addresses",
    "dht-churn",
    "idle",
    "wrong-clock",
    "strangers",
    "few-strangers",
    "any-program"
    ; parts "transfer", "siege"
}

/// The one of that name.
pub(crate) fn find(name: &str) -> Option<&'static Shipped> {
    ALL.iter().find(|shipped| shipped.name == name)
}

/// Those that can be run.
pub(crate) fn scenarios() -> impl Iterator<Item = &'static Shipped> {
    ALL.iter().filter(|shipped| !shipped.is_part)
}
