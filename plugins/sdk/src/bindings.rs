//! What wit-bindgen makes of the interface: the host's functions and types once, and each hook in a module of its own.
//!
//! A component exports only the hooks it has, so every hook has a world of its own; [`export!`](crate::export) expands
//! the macros of just the hooks it is given, and the linker merges their type sections.

#![allow(
    missing_docs,
    reason = "the comments of the interface are the documentation"
)]

/// The host's functions, and the types that all hooks share.
pub mod host {
    wit_bindgen::generate!({
        path: "../wit/v0.1",
        world: "imports",
        additional_derives: [PartialEq],
    });
}

/// One hook's export macro and trait, made of the types in [`host`].
macro_rules! hook {
    ($name:ident, $world:literal) => {
        pub mod $name {
            wit_bindgen::generate!({
                path: "../wit/v0.1",
                world: $world,
                pub_export_macro: true,
                with: {
                    "embedgate:plugin/types@0.1.0": crate::bindings::host::embedgate::plugin::types,
                    "embedgate:plugin/log@0.1.0": crate::bindings::host::embedgate::plugin::log,
                    "embedgate:plugin/clock@0.1.0": crate::bindings::host::embedgate::plugin::clock,
                    "embedgate:plugin/random@0.1.0": crate::bindings::host::embedgate::plugin::random,
                    "embedgate:plugin/secrets@0.1.0": crate::bindings::host::embedgate::plugin::secrets,
                    "embedgate:plugin/kv@0.1.0": crate::bindings::host::embedgate::plugin::kv,
                    "embedgate:plugin/metrics@0.1.0": crate::bindings::host::embedgate::plugin::metrics,
                    "embedgate:plugin/crypto@0.1.0": crate::bindings::host::embedgate::plugin::crypto,
                    "embedgate:plugin/http@0.1.0": crate::bindings::host::embedgate::plugin::http,
                },
            });
        }
    };
}

hook!(lifecycle, "lifecycle-hook");
hook!(authenticator, "authenticator-hook");
hook!(preprocessor, "preprocessor-hook");
hook!(observer, "observer-hook");
