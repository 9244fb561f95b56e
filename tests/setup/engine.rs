//! The engine on oneDNN in a server: threads on cores of their own, memory that is judged.

use embedgate_test_support::{Gateway, config_file, embedgate, run, tiny_config};

#[cfg(target_os = "linux")]
#[test]
fn threads_stay_on_cores_of_their_own_where_that_is_set() {
    let processors = |pin: bool| {
        let backend = format!("backend = {{ type = \"cpu\", pin_threads = {pin}, ");
        let config = tiny_config("replicas = 2").replace("backend = { ", &backend);
        let gateway = Gateway::start(&config);
        gateway.processors_of_threads("cpu-0")
    };
    let free = processors(false);
    assert!(free.len() == 2 && free[0] == free[1], "{free:?}");
    let pinned = processors(true);
    let is_one = |list: &String| list.parse::<usize>().is_ok();
    assert!(pinned.len() == 2 && pinned.iter().all(is_one), "{pinned:?}");
    // A machine of one core has no other.
    let has_more = embedgate_core::machine::cores::physical().len() > 1;
    assert_eq!(pinned[0] != pinned[1], has_more, "{pinned:?}");
}

#[test]
fn a_model_that_takes_more_memory_than_it_may_is_refused_with_the_numbers() {
    let with = |more: &str| {
        let file = config_file(&tiny_config(more));
        let (code, _, errors) = run(embedgate().arg("check").arg(file.path()));
        (code, errors)
    };
    let (code, errors) = with("max_memory = \"9MiB\"");
    assert_eq!(code, Some(78), "{errors}");
    for part in [
        "the model takes about 14MiB, and max_memory is 9MiB",
        "3MiB of weights in f32",
        "to run a batch of 8192 tokens",
        "backend.precision = \"bf16\" takes 8MiB",
    ] {
        assert!(errors.contains(part), "{errors}");
    }
    let (code, errors) = with("max_memory = \"4MiB\"");
    assert_eq!(code, Some(78), "{errors}");
    assert!(
        errors.contains("a smaller max_length or max_batch_tokens takes less"),
        "{errors}"
    );
    let (code, errors) = with("max_memory = \"4MiB\"\nmax_length = 512");
    assert_eq!(code, Some(0), "{errors}");
}
