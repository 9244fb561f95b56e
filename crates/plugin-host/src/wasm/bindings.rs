//! Rust's view of `plugins/wit/v0.1`, made by wasmtime.

wasmtime::component::bindgen!({
    path: "../../plugins/wit/v0.1",
    world: "all",
    imports: {
        "embedgate:plugin/http": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    // Texts of a request are passed as they lie in the gateway's memory.
    ownership: Borrowing { duplicate_if_necessary: true },
    require_store_data_send: true,
});
