//! Private servers: each with its own loopback ports and temporary folder, ended with the process that started them.
//!
//! `shared()` gives one for all tests of a binary, started at its first use; `start()` one for a test that kills it. Where an
//! environment variable names a running server, `shared()` uses that one:
//!
//! | variable | value |
//! | --- | --- |
//! | `HIRESMED_TEST_AMQP` | `user:password@host:port` of RabbitMQ |
//! | `HIRESMED_TEST_AMQP_MANAGEMENT` | `host:port` of its management interface, which makes virtual hosts |
//! | `HIRESMED_TEST_REDIS` | `host:port` of Redis; databases 0 to 15 are emptied |
//! | `HIRESMED_TEST_S3` | URL of an S3 server, path style; credentials by the usual AWS chain |
//! | `HIRESMED_TEST_S3_BUCKET` | a bucket there |
//! | `HIRESMED_TEST_ORTHANC`, `HIRESMED_TEST_ORTHANC_DICOMWEB` | the program `Orthanc` and its plug-in `libOrthancDicomWeb.so` |
//! | `HIRESMED_TEST_WEED` | the program `weed`, where it is not in the test Python environment or the path |

mod orthanc;
mod process;
mod rabbitmq;
mod redis;
mod seaweed;

pub use self::{orthanc::Orthanc, process::Process, rabbitmq::Rabbitmq, redis::Redis, seaweed::Seaweed};

use hiresmed_services::settings::Settings;

/// Settings for an empty queue, store and cache on the shared servers.
pub fn fresh() -> Settings {
    Settings { queue: Rabbitmq::shared().fresh(), store: Seaweed::shared().fresh(), cache: Redis::shared().fresh() }
}
