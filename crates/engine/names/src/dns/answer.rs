//! What a zone says of a name: the algorithm of RFC 1034 §4.3.2, with RFC 4592's wildcards.

use super::CNAME_CHAIN_MAX;
use super::zone::{Node, Zone};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::HINFO;
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordType};

/// Addresses that are added though nobody asked for them. A referral needs those of a few name
/// servers; more would only make the answer larger.
const ADDITIONAL_MAX: usize = 16;

/// The sections of an answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: ResponseCode,
    /// The name is in this zone, and not below a cut.
    pub(super) is_authoritative: bool,
    /// The additional section has the addresses without which nothing can be done (RFC 9471).
    pub(super) is_referral: bool,
    pub(super) answers: Vec<Record>,
    pub(super) authorities: Vec<Record>,
    pub(super) additionals: Vec<Record>,
}

impl Answer {
    fn new(code: ResponseCode) -> Self {
        Answer {
            code,
            is_authoritative: false,
            is_referral: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
        }
    }
}

impl Zone {
    /// Answers a question of class IN.
    pub(super) fn answer(&self, name: &Name, kind: RecordType) -> Answer {
        let mut answer = Answer::new(ResponseCode::NoError);
        let mut owner = name.clone();
        loop {
            let name = LowerName::new(&owner);
            if !self.origin().zone_of(&name) {
                // An alias may lead out of the zone; where it leads to is for others to say.
                if answer.answers.is_empty() {
                    answer.code = ResponseCode::Refused;
                }
                break;
            }
            if let Some(servers) = self.cut(&name, kind) {
                answer.is_referral = true;
                answer.authorities.extend_from_slice(servers);
                break;
            }
            answer.is_authoritative = true;
            let node = self.node(&name).or_else(|| self.wildcard(&name));
            let Some(node) = node else {
                answer.code = ResponseCode::NXDomain;
                answer.authorities.push(self.soa().clone());
                break;
            };
            match self.answer_from(node, &owner, kind, &mut answer) {
                Some(target) => owner = target,
                None => break,
            }
        }
        self.add_addresses(&mut answer);
        answer
    }

    /// Adds what a node says about `owner`, which is its name or matches its wildcard; returns the
    /// name to go on with, if that is an alias.
    fn answer_from(
        &self,
        node: &Node,
        owner: &Name,
        kind: RecordType,
        answer: &mut Answer,
    ) -> Option<Name> {
        let own = |record: &Record| {
            let mut record = record.clone();
            record.name = owner.clone();
            record
        };
        if kind == RecordType::ANY {
            // RFC 8482 §4.2: a small answer to a question that only attackers need answered.
            let data = HINFO::new("RFC8482".to_string(), String::new());
            let ttl = self.soa().ttl;
            answer.answers.push(Record::from_rdata(owner.clone(), ttl, RData::HINFO(data)));
            return None;
        }
        if let Some(records) = node.get(&kind) {
            answer.answers.extend(records.iter().map(own));
            return None;
        }
        let alias = node.get(&RecordType::CNAME).and_then(|records| records.first());
        let Some((alias, RData::CNAME(target))) = alias.map(|alias| (alias, &alias.data)) else {
            answer.authorities.push(self.soa().clone());
            return None;
        };
        let is_loop = answer.answers.iter().any(|record| record.name == *owner);
        if is_loop || answer.answers.len() >= CNAME_CHAIN_MAX {
            return None;
        }
        answer.answers.push(own(alias));
        Some(target.0.clone())
    }

    /// Adds the addresses of the hosts that the answer names (RFC 1035 §3.3).
    fn add_addresses(&self, answer: &mut Answer) {
        let from = if answer.is_referral { &answer.authorities } else { &answer.answers };
        let hosts = from.iter().filter_map(|record| match &record.data {
            RData::NS(host) => Some(&host.0),
            RData::MX(exchange) => Some(&exchange.exchange),
            RData::SRV(service) => Some(&service.target),
            _ => None,
        });
        let mut seen: Vec<LowerName> = Vec::new();
        for host in hosts {
            let name = LowerName::new(host);
            if seen.contains(&name) {
                continue;
            }
            // What lies below a cut is glue, and only a referral may carry it.
            if let Some(node) = self.node(&name)
                && (answer.is_referral || self.cut(&name, RecordType::A).is_none())
            {
                for kind in [RecordType::A, RecordType::AAAA] {
                    let records = node.get(&kind).map_or(&[][..], Vec::as_slice);
                    let room = ADDITIONAL_MAX.saturating_sub(answer.additionals.len());
                    answer.additionals.extend(records.iter().take(room).cloned());
                }
            }
            seen.push(name);
        }
    }
}
