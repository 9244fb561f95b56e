//! Very little of WASI, for guests whose compiler imports it whether they use it or not: time and randomness are there, no
//! arguments, no variables. The end of standard output and standard error is kept for the message of a call that fails: languages
//! with exceptions write them there. Everything else (files, input) ends the call with the name of what was wanted.

use wasmtime::{
    AsContextMut, Result, StoreContextMut, bail,
    component::{
        Component, ComponentType, Linker, LinkerInstance, Lower, Resource, ResourceType,
        types::ComponentItem,
    },
};

use super::{
    bindings::embedgate::plugin::{clock, random},
    state::GuestState,
};

/// Adds what the component imports of WASI, and nothing else: what is missing of our own interface is refused by name.
pub(super) fn add_to_linker(linker: &mut Linker<GuestState>, component: &Component) -> Result<()> {
    let engine = component.engine().clone();
    for (name, item) in component.component_type().imports(&engine) {
        let ComponentItem::ComponentInstance(instance) = item.ty else {
            continue;
        };
        if !name.starts_with("wasi:") {
            continue;
        }
        let interface = name.split('@').next().unwrap_or(name);
        let mut linked = linker.instance(name)?;
        for (function, item) in instance.exports(&engine) {
            match item.ty {
                ComponentItem::ComponentFunc(_) => add(&mut linked, interface, function)?,
                ComponentItem::Resource(_) => {
                    linked.resource(function, ResourceType::host::<Nothing>(), |_, _| Ok(()))?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// The time as WASI says it.
#[derive(ComponentType, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

/// The content of WASI's resources here: none.
struct Nothing;

/// The errors of a stream; here there are none.
#[derive(ComponentType, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    #[expect(dead_code, reason = "the interface has it")]
    Failed(Resource<Nothing>),
    #[component(name = "closed")]
    #[expect(dead_code, reason = "the interface has it")]
    Closed,
}

type Streamed<T> = Result<(std::result::Result<T, StreamError>,)>;

/// Bytes that a guest may write at once.
const WRITTEN_AT_ONCE: u64 = 4096;

fn add(linked: &mut LinkerInstance<'_, GuestState>, interface: &str, function: &str) -> Result<()> {
    type Context<'a> = StoreContextMut<'a, GuestState>;
    match (interface, function) {
        ("wasi:random/random" | "wasi:random/insecure", bytes) if bytes.ends_with("-bytes") => {
            linked.func_wrap(bytes, |mut store: Context<'_>, (n,): (u64,)| {
                let n = u32::try_from(n).unwrap_or(u32::MAX);
                Ok((random::Host::bytes(store.data_mut(), n)?,))
            })
        }
        ("wasi:random/random" | "wasi:random/insecure", u64) if u64.ends_with("-u64") => {
            linked.func_wrap(u64, |store, (): ()| Ok((random_u64(store)?,)))
        }
        ("wasi:random/insecure-seed", name) => {
            linked.func_wrap(name, |mut store: Context<'_>, (): ()| {
                let halves = (random_u64(store.as_context_mut())?, random_u64(store)?);
                Ok((halves,))
            })
        }
        ("wasi:clocks/monotonic-clock", "now") => linked
            .func_wrap("now", |mut store: Context<'_>, (): ()| {
                Ok((clock::Host::monotonic_ns(store.data_mut())?,))
            }),
        ("wasi:clocks/wall-clock", "now") => {
            linked.func_wrap("now", |mut store: Context<'_>, (): ()| {
                let ms = clock::Host::unix_ms(store.data_mut())?;
                let nanoseconds = u32::try_from(ms % 1000 * 1_000_000).unwrap_or(0);
                Ok((Datetime {
                    seconds: ms / 1000,
                    nanoseconds,
                },))
            })
        }
        ("wasi:cli/environment", "get-environment") => linked
            .func_wrap("get-environment", |_, (): ()| {
                Ok((Vec::<(String, String)>::new(),))
            }),
        ("wasi:cli/environment", "get-arguments") => {
            linked.func_wrap("get-arguments", |_, (): ()| Ok((Vec::<String>::new(),)))
        }
        ("wasi:cli/environment", "initial-cwd") => {
            linked.func_wrap("initial-cwd", |_, (): ()| Ok((None::<String>,)))
        }
        ("wasi:cli/stdout" | "wasi:cli/stderr", get) => linked
            .func_wrap(get, |_: Context<'_>, (): ()| {
                Ok((Resource::<Nothing>::new_own(0),))
            }),
        ("wasi:cli/terminal-stdout" | "wasi:cli/terminal-stderr", get) => linked
            .func_wrap(get, |_: Context<'_>, (): ()| {
                Ok((None::<Resource<Nothing>>,))
            }),
        ("wasi:io/streams", "[method]output-stream.check-write") => linked.func_wrap(
            function,
            |_: Context<'_>, _: (Resource<Nothing>,)| -> Streamed<u64> {
                Ok((Ok(WRITTEN_AT_ONCE),))
            },
        ),
        (
            "wasi:io/streams",
            "[method]output-stream.write" | "[method]output-stream.blocking-write-and-flush",
        ) => linked.func_wrap(
            function,
            |mut store: Context<'_>, (_, bytes): (Resource<Nothing>, Vec<u8>)| -> Streamed<()> {
                store.data_mut().capture(&bytes)?;
                Ok((Ok(()),))
            },
        ),
        (
            "wasi:io/streams",
            "[method]output-stream.flush" | "[method]output-stream.blocking-flush",
        ) => linked.func_wrap(
            function,
            |_: Context<'_>, _: (Resource<Nothing>,)| -> Streamed<()> { Ok((Ok(()),)) },
        ),
        _ => {
            let name = format!("{interface} {function}");
            linked.func_new(function, move |_, _, _, _| {
                bail!("plugins have no WASI: {name} was called")
            })
        }
    }
}

fn random_u64(mut store: StoreContextMut<'_, GuestState>) -> Result<u64> {
    let bytes = random::Host::bytes(store.data_mut(), 8)?;
    let bytes = bytes.as_slice().try_into().expect("8 bytes were asked for");
    Ok(u64::from_le_bytes(bytes))
}
