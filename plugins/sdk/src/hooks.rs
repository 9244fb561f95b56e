//! The hooks as traits, and the macro that exports a plugin's.

use std::marker::PhantomData;

use crate::{EmbedRequest, Outcome, Principal, Rejection, RequestHead, Summary, bindings, panic};

/// Makes what the plugin needs of its settings, once.
///
/// Only `log`, `clock`, `random`, `secrets` and `crypto` may be called from here. The gateway keeps a snapshot of the
/// instance, from which all later ones start, perhaps in a file too: read secrets in the call that needs them.
pub trait Lifecycle {
    /// Takes the plugin's `settings` table as JSON text; [`settings::parse`](crate::settings::parse) types it.
    ///
    /// # Errors
    /// What is wrong with the settings, for whoever starts or reloads the gateway.
    fn init(settings: &str) -> Result<(), String>;
}

/// Says who the caller is, before the body is read.
pub trait Authenticator {
    /// Returns none for "not a credential of mine": the next authenticator is asked, and 401 answered after the last.
    ///
    /// # Errors
    /// A refusal: nobody else is asked.
    fn authenticate(head: RequestHead) -> Result<Option<Principal>, Rejection>;
}

/// Changes or refuses a request after its body is parsed, before the model is resolved and the cache is asked.
pub trait Preprocessor {
    /// Has no caller where the configuration lets anybody in.
    ///
    /// # Errors
    /// A refusal.
    fn preprocess(request: EmbedRequest, caller: Option<Principal>) -> Result<Outcome, Rejection>;
}

/// Sees finished requests, off their path.
pub trait Observer {
    /// Takes many at once; under load some are lost.
    fn observe(batch: Vec<Summary>);
}

/// Exports the named hooks of a plugin, and no others: `export!(MyPlugin: lifecycle, authenticator);`.
///
/// The hooks are `lifecycle`, `authenticator`, `preprocessor` and `observer`; the type has the trait of each. Outside
/// of WebAssembly it exports nothing, but still checks that.
#[macro_export]
macro_rules! export {
    ($plugin:ty: $($hook:ident),+ $(,)?) => {
        const _: () = {
            type Exported = $crate::Hooks<$plugin>;
            $($crate::export!(@check $hook $plugin);)+
            $(
                #[cfg(target_family = "wasm")]
                $crate::bindings::$hook::export!(Exported with_types_in $crate::bindings::$hook);
            )+
            #[cfg(not(target_family = "wasm"))]
            const _: Option<Exported> = None;
        };
    };
    (@check lifecycle $plugin:ty) => { $crate::export!(@has $plugin: $crate::Lifecycle); };
    (@check authenticator $plugin:ty) => { $crate::export!(@has $plugin: $crate::Authenticator); };
    (@check preprocessor $plugin:ty) => { $crate::export!(@has $plugin: $crate::Preprocessor); };
    (@check observer $plugin:ty) => { $crate::export!(@has $plugin: $crate::Observer); };
    (@has $plugin:ty: $hook:path) => {
        const _: () = {
            const fn has_the_trait_of_the_hook<T: $hook>() {}
            has_the_trait_of_the_hook::<$plugin>()
        };
    };
}

/// Stands between the component's exports and a plugin's traits.
#[derive(Debug)]
pub struct Hooks<P>(PhantomData<P>);

impl<P: Lifecycle> bindings::lifecycle::exports::embedgate::plugin::lifecycle::Guest for Hooks<P> {
    fn init(settings: String) -> Result<(), String> {
        panic::install_hook();
        P::init(&settings)?;
        // Freed settings leave a heap that is large enough for calls; a small one is grown here, so that instances that
        // start from the snapshot need not: growing takes the process's lock on its memory map.
        drop(std::hint::black_box(Vec::<u8>::with_capacity(HEAP_RESERVE)));
        Ok(())
    }
}

/// What 32 texts of 500 bytes, or 64 KiB in and out, need in a call.
const HEAP_RESERVE: usize = 192 * 1024;

impl<P: Authenticator> bindings::authenticator::exports::embedgate::plugin::authenticator::Guest
    for Hooks<P>
{
    fn authenticate(head: RequestHead) -> Result<Option<Principal>, Rejection> {
        panic::install_hook();
        P::authenticate(head)
    }
}

impl<P: Preprocessor> bindings::preprocessor::exports::embedgate::plugin::preprocessor::Guest
    for Hooks<P>
{
    fn preprocess(request: EmbedRequest, caller: Option<Principal>) -> Result<Outcome, Rejection> {
        panic::install_hook();
        P::preprocess(request, caller)
    }
}

impl<P: Observer> bindings::observer::exports::embedgate::plugin::observer::Guest for Hooks<P> {
    fn observe(batch: Vec<Summary>) {
        panic::install_hook();
        P::observe(batch);
    }
}
