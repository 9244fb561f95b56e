//! The inputs that are not in the cache: computed here, or waited for where somebody else computes them.

use std::{collections::HashMap, sync::Arc};

use embedgate_core::{Head, PerHead};
use embedgate_request::{Error, ErrorKind, Input, RequestContext};
use futures_util::future::try_join_all;

use super::{
    inputs::Prepared,
    pipeline::{Pipeline, Values},
    task::EmbedTask,
};
use crate::{
    batch::Patience,
    cache::{CacheKey, Flight},
};

impl Pipeline {
    /// Computes what is missing, or waits for others who do. Admission is for all of it or for none.
    pub(super) async fn compute_missing(
        &self,
        task: &EmbedTask,
        ctx: &RequestContext,
        prepared: Vec<Prepared>,
        found: &mut [Values],
    ) -> Result<(), Error> {
        let metrics = &task.model.metrics;
        // Who waits for what: an input, the heads it needs of the flight, and the flight.
        let mut waits: Vec<(usize, PerHead<CacheKey>, Flight)> = Vec::new();
        let mut new: Vec<(usize, PerHead<CacheKey>, Input)> = Vec::new();
        let mut new_by_key: HashMap<CacheKey, usize> = HashMap::new();
        let mut twins: Vec<(usize, PerHead<CacheKey>, usize)> = Vec::new();
        for (i, input) in prepared.into_iter().enumerate() {
            let mut keys = missing(&input, &found[i]);
            if keys.is_empty() {
                continue;
            }
            for head in Head::ALL {
                if let Some(flight) = keys
                    .get(head)
                    .and_then(|key| self.cache.join(key, task.lane))
                {
                    waits.push((i, keys.take_only(head), flight));
                }
            }
            let Some((_, key)) = keys.iter().next() else {
                metrics.coalesced.inc();
                continue;
            };
            match new_by_key.get(key) {
                Some(twin) => {
                    metrics.coalesced.inc();
                    twins.push((i, keys, *twin));
                }
                None => {
                    new_by_key.insert(*key, new.len());
                    new.push((i, keys, input.input));
                }
            }
        }
        let estimates: Vec<usize> = new
            .iter()
            .map(|(_, _, input)| task.model.estimate_tokens(input))
            .collect();
        let admissions = task
            .model
            .batcher()
            .admit(&estimates, task.lane, Patience::of(ctx))?;
        metrics.misses.inc_by(new.len() as u64);
        let mut flights = Vec::with_capacity(new.len());
        for ((i, keys, input), admission) in new.into_iter().zip(admissions) {
            let flight = self.cache.start(keys, task.lane, |urgent| {
                let task = task.clone();
                task.compute(input, keys.heads(), urgent, admission)
            });
            flights.push(flight.clone());
            waits.push((i, keys, flight));
        }
        for (i, keys, twin) in twins {
            waits.push((i, keys, flights[twin].clone()));
        }
        drop(flights);
        let landed = |(i, keys, flight): (usize, PerHead<CacheKey>, Flight)| async move {
            let values = flight.await.map_err(|error| error.of_input(i))?;
            Ok::<_, Error>((i, keys, values))
        };
        for (i, keys, values) in try_join_all(waits.into_iter().map(landed)).await? {
            for (head, _) in keys.iter() {
                let value = values
                    .get(head)
                    .ok_or_else(|| Error::new(ErrorKind::Internal, "a result was not computed"))?;
                found[i].set(head, Arc::clone(value));
            }
        }
        Ok(())
    }
}

/// The keys of an input for which nothing was found.
pub(super) fn missing(input: &Prepared, found: &Values) -> PerHead<CacheKey> {
    let mut keys = input.keys;
    for (head, _) in found.iter() {
        keys.take(head);
    }
    keys
}
