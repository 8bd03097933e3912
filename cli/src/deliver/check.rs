//! QIDO-RS (PS3.18 10.6): whether what was stored is found. Some archives answer a store before a search sees it, so the search is
//! repeated for a while.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use http::StatusCode;

use super::{
    Shared, answer,
    plan::Item,
    record::Outcome,
    retry::{self, Tried},
};

/// Instances asked for at a time. An archive may give fewer (PS3.18 8.3.4.4).
const PAGE: usize = 500;
/// Waits between searches for what is missing: the first, and the longest.
const WAITS: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(5)];

/// Searches for `items`, records those that are found, and gives the others; those are recorded as missing where `late` says so.
///
/// # Errors
/// The archive does not answer, or not as it should; or the record cannot be written.
pub async fn check(shared: &Shared, items: Vec<Item>, patience: Duration, late: Outcome) -> Result<Vec<Item>> {
    let began = Instant::now();
    let mut wait = WAITS[0];
    let mut studies: BTreeMap<String, Vec<Item>> = BTreeMap::new();
    for item in items {
        studies.entry(item.study.clone()).or_default().push(item);
    }
    loop {
        for (study, items) in &mut studies {
            if shared.stop.is_cancelled() {
                break;
            }
            let mut wanted: HashSet<&str> = items.iter().map(|item| item.sop_instance.as_str()).collect();
            find(shared, study, &mut wanted).await?;
            let missing: HashSet<String> = wanted.into_iter().map(str::to_owned).collect();
            for item in items.extract_if(.., |item| !missing.contains(&item.sop_instance)) {
                shared.verified(&item)?;
            }
        }
        studies.retain(|_, items| !items.is_empty());
        if studies.is_empty() || began.elapsed() >= patience || shared.stop.is_cancelled() {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.stop.cancelled() => {}
        }
        wait = (wait * 2).min(WAITS[1]);
    }
    let missing: Vec<Item> = studies.into_values().flatten().collect();
    if late == Outcome::Missing && !shared.stop.is_cancelled() {
        for item in &missing {
            shared.settle(item, late, Some("stored as the archive said, and not found by QIDO-RS".to_owned()))?;
        }
    }
    Ok(missing)
}

/// Removes from `wanted` what the study has.
async fn find(shared: &Shared, study: &str, wanted: &mut HashSet<&str>) -> Result<()> {
    let mut seen = HashSet::new();
    while !wanted.is_empty() {
        let address = format!("studies/{study}/instances?limit={PAGE}&offset={}", seen.len());
        let Some(page) = page(shared, &shared.address.resource(&address)).await? else { break };
        let before = seen.len();
        for uid in page {
            wanted.remove(uid.as_str());
            seen.insert(uid);
        }
        // The end; or an archive that does not know offsets gives the same again.
        if seen.len() == before {
            break;
        }
    }
    Ok(())
}

/// A page of SOP Instance UIDs; `None` where the archive knows no such study, or the run is to end.
async fn page(shared: &Shared, address: &str) -> Result<Option<Vec<String>>> {
    let mut attempt = 0;
    loop {
        let (why, asked) = match retry::sort(shared.http.get(address).await) {
            Tried::Answer(answer) => match answer.status {
                // A study that is not indexed yet is none.
                StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => return Ok(None),
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => {
                    let found = answer::found(&answer.body);
                    return found.map(Some).map_err(|error| anyhow!("the archive's answer to a search: {error}"));
                }
                status => {
                    let text = retry::fatal(status, shared.address.root());
                    return Err(anyhow!(text.unwrap_or_else(|| format!("the archive answers {status} to a search"))));
                }
            },
            Tried::Never(why) => return Err(anyhow!(why)),
            Tried::Again { why, asked, .. } => (why, asked),
        };
        if attempt >= shared.patience.retries {
            return Err(anyhow!("{why}, after {} attempts", attempt + 1));
        }
        if !shared.patience.rest(attempt, asked, &why, &shared.stop).await {
            return Ok(None);
        }
        attempt += 1;
    }
}
