//! An empty WASI, for guests whose compiler imports it whether they use it or not: time and randomness are there, no
//! arguments, no variables; everything else (files, streams) ends the call with the name of what was wanted.

use wasmtime::{
    AsContextMut, Result, StoreContextMut,
    component::{Component, Linker},
};

use super::{
    bindings::embedgate::plugin::{clock, random},
    inspect::Inspection,
    state::State,
};

/// Adds what the component imports of WASI.
pub(super) fn add_to_linker(
    linker: &mut Linker<State>,
    inspection: &Inspection,
    component: &Component,
) -> Result<()> {
    for name in inspection.wasi_imports() {
        let interface = name.split('@').next().unwrap_or(name);
        let mut instance = linker.instance(name)?;
        match interface {
            "wasi:random/random" => {
                instance.func_wrap(
                    "get-random-bytes",
                    |mut store: StoreContextMut<'_, State>, (n,): (u64,)| {
                        let n = u32::try_from(n).unwrap_or(u32::MAX);
                        Ok((random::Host::bytes(store.data_mut(), n)?,))
                    },
                )?;
                instance.func_wrap("get-random-u64", |store, (): ()| Ok((random_u64(store)?,)))?;
            }
            "wasi:random/insecure-seed" => {
                instance.func_wrap(
                    "insecure-seed",
                    |mut store: StoreContextMut<'_, State>, (): ()| {
                        let halves = (random_u64(store.as_context_mut())?, random_u64(store)?);
                        Ok((halves,))
                    },
                )?;
            }
            "wasi:clocks/monotonic-clock" => {
                instance.func_wrap("now", |mut store: StoreContextMut<'_, State>, (): ()| {
                    Ok((clock::Host::monotonic_ns(store.data_mut())?,))
                })?;
            }
            "wasi:cli/environment" => {
                instance.func_wrap("get-environment", |_, (): ()| {
                    Ok((Vec::<(String, String)>::new(),))
                })?;
                instance.func_wrap("get-arguments", |_, (): ()| Ok((Vec::<String>::new(),)))?;
                instance.func_wrap("initial-cwd", |_, (): ()| Ok((None::<String>,)))?;
            }
            _ => {}
        }
    }
    linker.define_unknown_imports_as_traps(component)
}

fn random_u64(mut store: StoreContextMut<'_, State>) -> Result<u64> {
    let bytes = random::Host::bytes(store.data_mut(), 8)?;
    let bytes = bytes.as_slice().try_into().expect("8 bytes were asked for");
    Ok(u64::from_le_bytes(bytes))
}
