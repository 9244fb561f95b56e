use embedgate_config::ByteSize;
use moka::Expiry;

use embedgate_config::ValuePrecision;
use embedgate_core::HeadValue;

use super::*;

/// The results of a text that was computed at some time, in seconds since 1970.
pub(super) fn value(computed_at: u64, dimensions: usize) -> PerHead<Arc<CachedValue>> {
    let vector = HeadValue::Vector(vec![1.0; dimensions]);
    let computed = Computed {
        row: std::iter::once((Head::Dense, vector)).collect(),
        n_tokens: 1,
        n_tokens_full: 1,
    };
    computed.into_values(ValuePrecision::F32, computed_at)
}

#[test]
fn the_time_to_live_counts_from_the_computation() {
    let hour = TimeToLive(Duration::from_secs(3600));
    let left = |age: u64| {
        let values = value(now_seconds() - age, 1);
        let value = values.get(Head::Dense).unwrap();
        let left = hour.expire_after_create(&CacheKey([0; 32]), value, Instant::now());
        left.unwrap().as_secs()
    };
    assert!((3598..=3600).contains(&left(0)));
    assert!((2598..=2600).contains(&left(1000)));
    assert_eq!(left(4000), 0);
}

#[tokio::test]
async fn memory_stays_within_its_size_and_evictions_are_counted() {
    let metrics = Metrics::new();
    let config = CacheConfig {
        max_size: ByteSize::mib(1),
        ..CacheConfig::default()
    };
    let cache = EmbeddingCache::new(&config, None, &metrics);
    let memory = cache.0.memory.as_ref().unwrap();
    for i in 0..2000_u16 {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&i.to_le_bytes());
        let values = value(now_seconds(), 1024);
        let value = values.get(Head::Dense).unwrap();
        memory.insert(CacheKey(key), Arc::clone(value)).await;
    }
    let (entries, bytes) = cache.size().await;
    assert!(
        (200..=260).contains(&entries) && bytes <= 1 << 20,
        "{entries} {bytes}"
    );
    let text = metrics.text();
    let line = "embedgate_cache_evictions_total{cause=\"size\"} ";
    let counted = text.lines().find_map(|l| l.strip_prefix(line)).unwrap();
    assert_eq!(counted.parse::<u64>().unwrap() + entries, 2000);
}

#[tokio::test]
async fn a_flight_that_everybody_left_is_forgotten() {
    let cache = EmbeddingCache::new(&CacheConfig::default(), None, &Metrics::new());
    let mut keys = PerHead::default();
    keys.set(Head::Dense, CacheKey([1; 32]));
    let never = |_| std::future::pending::<Result<Computed, Error>>();
    let flight = cache.start(keys, Lane::Bulk, never);
    let joined = cache.join(&CacheKey([1; 32]), Lane::Query);
    assert!(joined.is_some());
    drop(flight);
    assert_eq!(cache.0.flights.len(), 1);
    drop(joined);
    assert_eq!(cache.0.flights.len(), 0);
    assert!(cache.join(&CacheKey([1; 32]), Lane::Query).is_none());
}

#[tokio::test]
async fn a_query_that_joins_makes_the_work_urgent() {
    let cache = EmbeddingCache::new(&CacheConfig::default(), None, &Metrics::new());
    let mut keys = PerHead::default();
    keys.set(Head::Dense, CacheKey([1; 32]));
    let mut urgent: Option<crate::batch::Urgent> = None;
    let _flight = cache.start(keys, Lane::Bulk, |given| {
        urgent = Some(given);
        std::future::pending::<Result<Computed, Error>>()
    });
    let is_urgent = || {
        let urgent = urgent.as_ref().unwrap();
        urgent.is_set()
    };
    let _bulk = cache.join(&CacheKey([1; 32]), Lane::Bulk);
    assert!(!is_urgent());
    let _query = cache.join(&CacheKey([1; 32]), Lane::Query);
    assert!(is_urgent());
}

#[tokio::test]
async fn an_error_reaches_all_who_wait_and_nothing_is_kept() {
    let cache = EmbeddingCache::new(&CacheConfig::default(), None, &Metrics::new());
    let mut keys = PerHead::default();
    keys.set(Head::Dense, CacheKey([1; 32]));
    let (fail, failed) = tokio::sync::oneshot::channel::<()>();
    let first = cache.start(keys, Lane::Bulk, |_| async move {
        failed.await.unwrap();
        Err(Error::new(embedgate_request::ErrorKind::Internal, "no"))
    });
    let second = cache.join(&CacheKey([1; 32]), Lane::Bulk).unwrap();
    fail.send(()).unwrap();
    assert_eq!(first.await.unwrap_err().message, "no");
    assert_eq!(second.await.unwrap_err().message, "no");
    assert!(cache.get(&CacheKey([1; 32])).await.is_none());
    assert_eq!(cache.0.flights.len(), 0);
}
