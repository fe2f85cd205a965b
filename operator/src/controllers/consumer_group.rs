//! A consumer group as its coordinator tells of it: one whose members share the partitions out and one to which the broker
//! tells them (KIP-848) alike.
#![allow(
    unsafe_code,
    reason = "the safe crate asks librdkafka's older question only, whose answer is without the groups of KIP-848"
)]

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_int};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

/// Members, and what they have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConsumerGroup {
    /// Whether the coordinator waits for no member.
    pub(super) stable: bool,
    /// Whether the members share the partitions out among themselves.
    pub(super) is_classic: bool,
    /// Topic and partition of all that each member has. During a rebalance of a classic group they are not told.
    pub(super) members: Vec<BTreeSet<(String, i32)>>,
}

impl ConsumerGroup {
    /// How many members share the partitions out among themselves: Kafka takes no member of KIP-848 beside them.
    pub(super) fn classic_members(&self) -> usize {
        if self.is_classic {
            self.members.len()
        } else {
            0
        }
    }

    /// How many partitions of a topic have a member; `None` while the coordinator waits for members.
    pub(super) fn assigned(&self, topic: &str) -> Option<usize> {
        let all = self.members.iter().flatten().filter(|(of, _)| of == topic);
        self.stable.then(|| all.collect::<BTreeSet<_>>().len())
    }

    /// How many members share all partitions of a topic; `None` while partitions change hands. A cooperative rebalance of
    /// a classic group is two of the coordinator's: between them it calls the group stable, and what one member has let go is
    /// nobody's.
    pub(super) fn settled_members(&self, topic: &str, partitions: usize) -> Option<usize> {
        let members = self.members.len();
        let assigned = self.assigned(topic)?;
        (members == 0 || assigned == partitions).then_some(members)
    }
}

/// Asks the coordinator of a group by any client of its Kafka. A group that there is none of has no members.
///
/// librdkafka asks for a group of KIP-848 first and, where that is not one or the broker is too old to know of them, for a classic one.
///
/// # Errors
/// When Kafka refuses or has not answered in time.
pub(super) fn describe(
    client: &BaseConsumer,
    group: &str,
    patience: Duration,
) -> Result<ConsumerGroup, KafkaError> {
    let name = CString::new(group)?;
    let millis = c_int::try_from(patience.as_millis()).unwrap_or(c_int::MAX);
    let rk = client.client().native_ptr();
    // SAFETY: the client lives longer than all that is made here. librdkafka copies the name before it returns. What is read of
    // the answer is copied before the answer is let go.
    unsafe {
        let queue = Owned(rd::rd_kafka_queue_new(rk), rd::rd_kafka_queue_destroy);
        let about = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
        let options = rd::rd_kafka_AdminOptions_new(rk, about);
        let options = Owned(options, rd::rd_kafka_AdminOptions_destroy);
        let limited = rd::rd_kafka_AdminOptions_set_request_timeout;
        check(limited(options.0, millis, ptr::null_mut(), 0))?;
        let mut names = [name.as_ptr()];
        rd::rd_kafka_DescribeConsumerGroups(rk, names.as_mut_ptr(), 1, options.0, queue.0);
        let answer = rd::rd_kafka_queue_poll(queue.0, millis);
        let answer = Owned(answer, rd::rd_kafka_event_destroy);
        if answer.0.is_null() {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut));
        }
        read(answer.0)
    }
}

/// The one group of an answer.
///
/// # Safety
/// `answer` is an event of librdkafka's.
unsafe fn read(answer: *mut rd::rd_kafka_event_t) -> Result<ConsumerGroup, KafkaError> {
    use rd::rd_kafka_consumer_group_state_t as State;
    use rd::rd_kafka_consumer_group_type_t as Type;
    // SAFETY: everything read here belongs to the answer. Lists have as many elements as librdkafka says.
    unsafe {
        check(rd::rd_kafka_event_error(answer))?;
        let group = first_group(answer).ok_or(KafkaError::AdminOp(RDKafkaErrorCode::BadMessage))?;
        let error = rd::rd_kafka_ConsumerGroupDescription_error(group);
        if !error.is_null() {
            check(rd::rd_kafka_error_code(error))?;
        }
        let members = 0..rd::rd_kafka_ConsumerGroupDescription_member_count(group);
        Ok(ConsumerGroup {
            // States that only a group of KIP-848 has, while partitions change hands, are unknown to librdkafka.
            stable: matches!(
                rd::rd_kafka_ConsumerGroupDescription_state(group),
                State::RD_KAFKA_CONSUMER_GROUP_STATE_STABLE
                    | State::RD_KAFKA_CONSUMER_GROUP_STATE_EMPTY
                    | State::RD_KAFKA_CONSUMER_GROUP_STATE_DEAD
            ),
            is_classic: rd::rd_kafka_ConsumerGroupDescription_type(group)
                == Type::RD_KAFKA_CONSUMER_GROUP_TYPE_CLASSIC,
            members: members
                .map(|at| partitions(rd::rd_kafka_ConsumerGroupDescription_member(group, at)))
                .collect(),
        })
    }
}

/// # Safety
/// `answer` is an event of librdkafka's.
unsafe fn first_group(
    answer: *mut rd::rd_kafka_event_t,
) -> Option<*const rd::rd_kafka_ConsumerGroupDescription_t> {
    // SAFETY: a result belongs to the answer, and has as many groups as librdkafka says.
    unsafe {
        let result = rd::rd_kafka_event_DescribeConsumerGroups_result(answer);
        if result.is_null() {
            return None;
        }
        let mut count = 0;
        let groups = rd::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
        (count > 0 && !groups.is_null()).then(|| *groups)
    }
}

/// What a member has.
///
/// # Safety
/// `member` is null or of an answer that is there.
unsafe fn partitions(member: *const rd::rd_kafka_MemberDescription_t) -> BTreeSet<(String, i32)> {
    // SAFETY: the list and the names in it belong to the answer, and the list has as many elements as it says.
    unsafe {
        if member.is_null() {
            return BTreeSet::new();
        }
        let assignment = rd::rd_kafka_MemberDescription_assignment(member);
        if assignment.is_null() {
            return BTreeSet::new();
        }
        let list = rd::rd_kafka_MemberAssignment_partitions(assignment);
        if list.is_null() || (*list).elems.is_null() {
            return BTreeSet::new();
        }
        let count = usize::try_from((*list).cnt).unwrap_or(0);
        let elements = std::slice::from_raw_parts((*list).elems, count);
        let named = elements.iter().filter(|it| !it.topic.is_null());
        named
            .map(|it| {
                let topic = CStr::from_ptr(it.topic).to_string_lossy();
                (topic.into_owned(), it.partition)
            })
            .collect()
    }
}

fn check(code: rd::rd_kafka_resp_err_t) -> Result<(), KafkaError> {
    match code {
        rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(KafkaError::AdminOp(code.into())),
    }
}

/// Something of librdkafka's that has to be let go.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: librdkafka has handed it over with this function to let it go by, and it is let go once.
            unsafe { (self.1)(self.0) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(stable: bool, members: &[&[i32]]) -> ConsumerGroup {
        let member = |has: &&[i32]| has.iter().map(|&it| ("t".to_owned(), it)).collect();
        ConsumerGroup {
            stable,
            is_classic: true,
            members: members.iter().map(member).collect(),
        }
    }

    #[test]
    fn members_count_when_they_have_all_partitions() {
        let seen = |group: ConsumerGroup| (group.settled_members("t", 4), group.assigned("t"));
        assert_eq!(seen(group(true, &[&[0, 1], &[2, 3]])), (Some(2), Some(4)));
        assert_eq!(seen(group(true, &[&[0, 1], &[]])), (None, Some(2)));
        assert_eq!(seen(group(false, &[&[0, 1, 2, 3], &[]])), (None, None));
        assert_eq!(seen(group(true, &[])), (Some(0), Some(0)));
        let idle = group(true, &[&[0, 1, 2, 3], &[]]);
        assert_eq!(idle.settled_members("t", 4), Some(2));
        assert_eq!(idle.assigned("other"), Some(0));
    }
}
