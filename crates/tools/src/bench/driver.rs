//! Makes requests of one kind for one target.

mod loops;

use std::sync::Arc;

use anyhow::{Context, bail};
use hyper::body::Bytes;

use super::{
    RequestConfig,
    client::{Connection, Target},
    texts::Texts,
};

/// Texts in a request that fills the hot set.
const FILL: usize = 16;

/// Makes requests of one kind for one target.
#[derive(Clone)]
pub(super) struct Driver {
    target: Target,
    config: Arc<RequestConfig>,
    texts: Texts,
}

impl Driver {
    /// Makes the driver of a target.
    pub(super) fn new(target: &Target, config: &RequestConfig, texts: &Texts) -> Self {
        Self {
            target: target.clone(),
            config: Arc::new(config.clone()),
            texts: texts.clone(),
        }
    }

    fn connection(&self) -> Connection {
        let config = &self.config;
        Connection::new(
            &self.target,
            config.key.as_deref(),
            config.lane,
            config.timeout,
        )
    }

    /// Sends one request, which has to succeed.
    pub(super) async fn try_out(&self) -> anyhow::Result<Bytes> {
        let mut random = self.texts.random(u64::MAX);
        let body = self.body(&mut random);
        let mut connection = self.connection();
        let name = &self.target.name;
        let reply = connection.post(body).await;
        let reply = reply.with_context(|| format!("the first request to {name} failed"))?;
        if reply.status != 200 {
            let text: String = String::from_utf8_lossy(&reply.bytes)
                .chars()
                .take(300)
                .collect();
            bail!(
                "{name} answers {} to the first request: {text}",
                reply.status
            );
        }
        Ok(reply.bytes)
    }

    /// Asks for every text of the hot set.
    pub(super) async fn fill_hot(&self) -> anyhow::Result<()> {
        let mut connection = self.connection();
        for texts in self.texts.hot().chunks(FILL) {
            let reply = connection.post(self.envelope(&texts.join(","))).await?;
            if reply.status != 200 {
                bail!(
                    "{} answers {} to texts of the hot set",
                    self.target.name,
                    reply.status
                );
            }
        }
        Ok(())
    }

    fn body(&self, random: &mut fastrand::Rng) -> Bytes {
        let mut inputs = String::new();
        for i in 0..self.config.inputs {
            if i > 0 {
                inputs.push(',');
            }
            self.texts.draw(random, &mut inputs);
        }
        self.envelope(&inputs)
    }

    fn envelope(&self, inputs: &str) -> Bytes {
        let model = serde_json::json!(self.config.model);
        let encoding = &self.config.encoding;
        format!(r#"{{"model":{model},"encoding_format":"{encoding}","input":[{inputs}]}}"#).into()
    }
}
