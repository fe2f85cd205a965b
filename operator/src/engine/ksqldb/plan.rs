//! From what a server has and what is asked for to what is to be done. Pure.

use super::Wanted;
use super::canonical::Statement;
use super::observe::{Health, Observed, RunningQuery};
use super::sql::create_stream;

/// What is to be done for one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It is as asked for.
    Nothing,
    /// It is made, or its query is set going again: nothing that was there is lost.
    InPlace(InPlace),
    /// It has to be dropped and made again. Its topic stays, and the new query writes everything that the source still
    /// holds into it once more.
    Recreate {
        /// Why.
        why: String,
    },
    /// It cannot be done, or must not be without somebody's help.
    Refused {
        /// Why, and what to do.
        why: String,
    },
    /// The server runs as many queries as it may.
    AtCapacity {
        /// Why, and what to do.
        why: String,
    },
}

/// What can be done without harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InPlace {
    /// Make the stream.
    Create,
    /// Let its paused query go on.
    Resume {
        /// The query.
        query: String,
    },
}

/// What is to be done for a stream, on a server that may run `budget` persistent queries.
#[must_use]
pub fn plan(wanted: &Wanted, observed: &Observed, budget: usize) -> Action {
    if let Some(why) = missing_source(wanted, observed) {
        return Action::Refused { why };
    }
    if observed.tables.contains_key(&wanted.name) {
        let why = format!(
            "ksqlDB has a table {}; set spec.stream.name to another name, or drop the table",
            wanted.name.as_str()
        );
        return Action::Refused { why };
    }
    let mut writers = observed.queries.iter();
    let other = writers.find(|query| query.topic == wanted.topic && query.sink != wanted.name);
    if let Some(other) = other {
        let why = format!(
            "query {} writes to topic {} already, and every event would stand there twice; terminate it, or set \
             spec.stream.topic to another topic",
            other.id, wanted.topic
        );
        return Action::Refused { why };
    }
    match observed.streams.get(&wanted.name) {
        Some(topic) => plan_existing(wanted, observed, topic),
        None => plan_new(wanted, observed, budget),
    }
}

/// What the join reads from, if it is not there.
fn missing_source(wanted: &Wanted, observed: &Observed) -> Option<String> {
    let (source, map) = (wanted.source.as_str(), wanted.map.as_str());
    match observed.streams.get(&wanted.source) {
        None => {
            return Some(format!(
                "ksqlDB has no stream {source} over topic {}; create it: CREATE STREAM {source} (asset_uuid VARCHAR KEY, id VARCHAR, \
                 value VARCHAR, tag VARCHAR, type VARCHAR, attributes MAP<VARCHAR, VARCHAR>) WITH (KAFKA_TOPIC='{}', \
                 VALUE_FORMAT='JSON');",
                wanted.source_topic, wanted.source_topic
            ));
        }
        Some(topic) if *topic != wanted.source_topic => {
            return Some(format!(
                "stream {source} of ksqlDB is over topic {topic} and not {}; set spec.sourceTopic, or the operator's \
                 KSQLDB_ASSETS_STREAM",
                wanted.source_topic
            ));
        }
        Some(_) => {}
    }
    let missing = !observed.tables.contains_key(&wanted.map);
    missing.then(|| {
        format!(
            "ksqlDB has no table {map} of assets and their levels; start OpenFactory's set-up, or set the operator's KSQLDB_UNS_MAP"
        )
    })
}

fn plan_new(wanted: &Wanted, observed: &Observed, budget: usize) -> Action {
    let running = observed.queries.len();
    if running < budget {
        return Action::InPlace(InPlace::Create);
    }
    let why = format!(
        "ksqlDB runs {running} queries and may run {budget}, for each reads the whole of {}; set spec.stream.engine: Native, which \
         reads it once for all groups, or raise the operator's KSQLDB_MAX_QUERIES",
        wanted.source_topic
    );
    Action::AtCapacity { why }
}

fn plan_existing(wanted: &Wanted, observed: &Observed, topic: &str) -> Action {
    let writer = observed
        .queries
        .iter()
        .find(|query| query.sink == wanted.name);
    let Some(writer) = writer else {
        return match topic == wanted.topic {
            true => recreate(wanted, observed, "its query is gone".to_owned()),
            false => Action::Refused {
                why: format!(
                    "stream {} is over topic {topic}, without a query of its own, so somebody else made it; drop it, or set \
                     spec.stream.name to another name",
                    wanted.name.as_str()
                ),
            },
        };
    };
    if let Some(difference) = difference(wanted, writer) {
        return recreate(wanted, observed, difference);
    }
    match &writer.health {
        Health::Running => Action::Nothing,
        Health::Paused => Action::InPlace(InPlace::Resume {
            query: writer.id.clone(),
        }),
        Health::Failed(state) => {
            let why = format!("its query {} is in state {state}", writer.id);
            recreate(wanted, observed, why)
        }
    }
}

/// What one statement says otherwise than another, which has to be made again for it.
#[must_use]
pub fn change(running: &Wanted, wanted: &Wanted) -> Option<String> {
    let running = Statement::read(&create_stream(running))?;
    Statement::read(&create_stream(wanted))?.differs_from(&running)
}

fn difference(wanted: &Wanted, running: &RunningQuery) -> Option<String> {
    let asked = Statement::read(&create_stream(wanted))?;
    match Statement::read(&running.statement) {
        Some(running) => asked.differs_from(&running),
        None => Some("it is written by INSERT INTO".to_owned()),
    }
}

fn recreate(wanted: &Wanted, observed: &Observed, why: String) -> Action {
    let readers = observed.queries.iter();
    let readers: Vec<&str> = readers
        .filter(|query| query.reads(&wanted.name))
        .map(|query| query.id.as_str())
        .collect();
    if readers.is_empty() {
        return Action::Recreate { why };
    }
    Action::Refused {
        why: format!(
            "stream {} has to be made again ({why}), but it is read by {}; terminate these queries and drop what they write",
            wanted.name.as_str(),
            readers.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::sql::Identifier;
    use super::super::tests::wanted;
    use super::*;

    const BUDGET: usize = 5;

    fn server() -> Observed {
        let mut observed = Observed::default();
        let source = Identifier::kept("ASSETS_STREAM");
        observed.streams.insert(source, "ofa_assets".to_owned());
        let map = Identifier::kept("ASSET_TO_UNS_MAP");
        observed.tables.insert(map, "ASSET_TO_UNS_MAP".to_owned());
        observed
    }

    fn made(observed: &mut Observed, wanted: &Wanted) {
        observed
            .streams
            .insert(wanted.name.clone(), wanted.topic.clone());
        observed.queries.push(RunningQuery {
            id: format!("CSAS_{}_{}", wanted.name.as_str(), observed.queries.len()),
            sink: wanted.name.clone(),
            topic: wanted.topic.clone(),
            statement: create_stream(wanted),
            health: Health::Running,
        });
    }

    fn with_weld() -> Observed {
        let mut observed = server();
        made(&mut observed, &wanted("Weld"));
        observed
    }

    fn decide(observed: &Observed) -> Action {
        plan(&wanted("Weld"), observed, BUDGET)
    }

    fn why(action: Action) -> String {
        match action {
            Action::Recreate { why } | Action::Refused { why } | Action::AtCapacity { why } => why,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn what_is_missing_is_made_and_what_is_there_stays() {
        assert_eq!(decide(&server()), Action::InPlace(InPlace::Create));
        assert_eq!(decide(&with_weld()), Action::Nothing);
    }

    #[test]
    fn a_paused_query_goes_on() {
        let mut observed = with_weld();
        observed.queries[0].health = Health::Paused;
        let query = observed.queries[0].id.clone();
        assert_eq!(
            decide(&observed),
            Action::InPlace(InPlace::Resume { query })
        );
    }

    #[test]
    fn what_is_broken_or_differs_is_made_again() {
        let mut failed = with_weld();
        failed.queries[0].health = Health::Failed("ERROR".to_owned());
        let mut gone = with_weld();
        gone.queries.clear();
        let mut drifted = with_weld();
        drifted.queries[0].statement = create_stream(&wanted("Paint")).replace("_Paint_", "_Weld_");
        for (observed, reason) in [
            (failed, "is in state ERROR"),
            (gone, "its query is gone"),
            (drifted, "its query says ''Paint'' where ''Weld'' is wanted"),
        ] {
            let action = decide(&observed);
            assert!(matches!(action, Action::Recreate { .. }), "{action:?}");
            let why = why(action);
            assert!(why.contains(reason), "{why}");
        }
    }

    #[test]
    fn what_others_need_is_left_alone() {
        let mut read = with_weld();
        read.queries[0].health = Health::Failed("ERROR".to_owned());
        read.queries.push(RunningQuery {
            id: "CSAS_MINE_9".to_owned(),
            sink: Identifier::kept("MINE"),
            topic: "MINE".to_owned(),
            statement: "CREATE STREAM MINE AS SELECT *\nFROM ASSET_STREAM_WELD ASSET_STREAM_WELD\nEMIT CHANGES;".to_owned(),
            health: Health::Running,
        });
        let mut foreign = server();
        foreign
            .streams
            .insert(wanted("Weld").name, "other".to_owned());
        let mut table = server();
        table.tables.insert(wanted("Weld").name, "t".to_owned());
        let mut taken = server();
        made(&mut taken, &wanted("Paint"));
        taken.queries[0].topic = wanted("Weld").topic;
        let mut elsewhere = server();
        for topic in elsewhere.streams.values_mut() {
            "plant2".clone_into(topic);
        }
        for (observed, advice) in [
            (read, "it is read by CSAS_MINE_9"),
            (foreign, "somebody else made it"),
            (table, "has a table ASSET_STREAM_WELD"),
            (taken, "set spec.stream.topic"),
            (elsewhere, "set spec.sourceTopic"),
            (
                Observed::default(),
                "create it: CREATE STREAM ASSETS_STREAM",
            ),
        ] {
            let action = decide(&observed);
            assert!(matches!(action, Action::Refused { .. }), "{action:?}");
            let why = why(action);
            assert!(why.contains(advice), "{why}");
        }
    }

    #[test]
    fn a_full_server_gets_no_more() {
        let mut observed = server();
        for n in 0..BUDGET {
            made(&mut observed, &wanted(&format!("G{n}")));
        }
        let action = decide(&observed);
        assert!(matches!(action, Action::AtCapacity { .. }), "{action:?}");
        assert_eq!(plan(&wanted("G0"), &observed, BUDGET), Action::Nothing);
    }

    proptest! {
        /// Any groups together: each is made once, and then nothing is to be done for any.
        #[test]
        fn a_plan_carried_out_is_settled(names in proptest::collection::btree_set("\\PC{1,30}", 1..20)) {
            let mut observed = server();
            let groups: Vec<Wanted> = names.iter().map(|name| wanted(name)).collect();
            for group in &groups {
                prop_assert_eq!(plan(group, &observed, 100), Action::InPlace(InPlace::Create));
                made(&mut observed, group);
            }
            for group in &groups {
                prop_assert_eq!(plan(group, &observed, 100), Action::Nothing);
            }
        }
    }
}
