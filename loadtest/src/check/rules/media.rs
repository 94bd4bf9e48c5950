//! MP, and what of SYN, PT, PDT, EV and MV needs the bytes: init sections, segments and their parts.
//!
//! Invariants: cases of a rendition come in the order of their numbers; bodies are judged and let go, what is kept per
//! segment is a few numbers, for the newest segments only.
#![deny(clippy::disallowed_methods)]

use crate::check::catalog::Rule;
use crate::check::fragment::{Fragment, Run, Sample};
use crate::check::init::{Init, Media, Track};
use crate::check::ledger::{Evidence, Ledger};
use crate::check::record::{Case, Rendition, Role};
use crate::check::rules::timeline::{Grid, micros};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// Durations of frames told apart.
const RATES_MAX: usize = 256;
/// Segments whose sizes are kept.
const SIZES_MAX: usize = 4096;

/// What is kept of one rendition.
#[derive(Debug, Default)]
pub(crate) struct Reel {
    init_bytes: Option<Bytes>,
    /// The newest init section; `None` while none could be read.
    pub(crate) init: Option<Init>,
    /// MSN of the newest case and where its tracks end, in ticks.
    last: Option<(u64, BTreeMap<u32, u64>)>,
    last_sequence: Option<u32>,
    last_key_us: Option<i64>,
    /// Sum of EXTINF minus true durations since the last discontinuity, and one frame, in microseconds.
    drift_us: f64,
    /// Durations in microseconds and bytes, for bandwidths.
    pub(crate) sizes: VecDeque<(u64, u64)>,
    /// How many video samples had a duration, as frames per 1000 s.
    rates: BTreeMap<u64, u64>,
}

impl Reel {
    /// Frames per second: the usual one, so that a frame that the source dropped does not matter.
    pub(crate) fn frame_rate(&self) -> Option<f64> {
        let (rate, _) = self.rates.iter().max_by_key(|(_, count)| **count)?;
        Some(*rate as f64 / 1000.0)
    }

    /// The next complete segment.
    pub(crate) fn see(&mut self, case: &Case, rendition: &Rendition, grid: &mut Grid, ledger: &mut Ledger) {
        let evidence = |said: String| Evidence::of(case.request.clone(), said);
        if case.body.first() == Some(&0x47) {
            ledger.note(Rule::Mp13, format!("{} is MPEG-TS: its bytes are not judged", case.request));
            return ledger.fail(Rule::Mp13, evidence("MPEG-TS".to_owned()));
        }
        ledger.pass(Rule::Mp13);
        ledger.judge(Rule::Mp01, case.listing.map.is_some() && case.init.is_some(), || {
            evidence("no EXT-X-MAP in force, or its init section cannot be had".to_owned())
        });
        let Some(bytes) = &case.init else { return };
        if !self.init(bytes, case, ledger) {
            return;
        }
        let Some(init) = self.init.clone() else { return };
        match Fragment::read(&case.body, &init) {
            // One picture for many: its duration and place are not those of a segment.
            Ok(fragment) if rendition.role == Role::IFrames => {
                ledger.judge(Rule::Mp03, fragment.addressing.is_empty(), || {
                    evidence(fragment.addressing.join("; "))
                });
                let first =
                    fragment.run(&init, Media::Video).and_then(|(run, _)| run.samples.first().cloned());
                let starts = first.is_some_and(|first| first.is_sync() && first.key != Some(false));
                ledger.judge(Rule::Mp08, starts, || evidence("an I-frame that is no IDR".to_owned()));
            }
            Ok(fragment) => {
                structure(&fragment, case, ledger);
                self.segment(&fragment, &init, case, ledger);
                parts(&fragment, &init, case, ledger);
                grid.place((&fragment, &init), case, &rendition.name, ledger);
            }
            Err(error) => ledger.fail(Rule::Mp07, evidence(error)),
        }
        if rendition.role == Role::IFrames {
            return;
        }
        let length = u64::try_from(case.listing.duration.as_micros()).unwrap_or(u64::MAX);
        self.sizes.push_back((length, case.body.len() as u64));
        if self.sizes.len() > SIZES_MAX {
            self.sizes.pop_front();
        }
    }

    /// Whether there is an init section to go by.
    fn init(&mut self, bytes: &Bytes, case: &Case, ledger: &mut Ledger) -> bool {
        if self.init_bytes.as_ref() == Some(bytes) {
            return self.init.is_some();
        }
        let uri = case.listing.map.as_ref().map_or("", |map| &map.uri);
        let evidence = |said: String| Evidence::of(format!("init section {uri} of {}", case.request), said);
        let read = Init::read(bytes);
        if let (Ok(new), Some(old)) = (&read, &self.init) {
            ledger.judge(Rule::Ev12, case.listing.discontinuity || new == old, || {
                evidence("another format than before, without EXT-X-DISCONTINUITY".to_owned())
            });
        }
        match read {
            Ok(init) => {
                ledger.judge(Rule::Mp02, init.flaws.is_empty(), || evidence(init.flaws.join("; ")));
                ledger.judge(Rule::Mp03, !init.external, || evidence("samples in other files".to_owned()));
                let audio = init.tracks.iter().filter(|track| track.media == Media::Audio).count();
                ledger.judge(Rule::Mp11, audio <= 1, || evidence(format!("{audio} audio tracks")));
                self.init = Some(init);
            }
            Err(error) => {
                ledger.fail(Rule::Mp02, evidence(error));
                self.init = None;
            }
        }
        self.init_bytes = Some(bytes.clone());
        self.init.is_some()
    }

    fn segment(&mut self, fragment: &Fragment, init: &Init, case: &Case, ledger: &mut Ledger) {
        let evidence = |said: String| Evidence::of(case.request.clone(), said);
        let ends: BTreeMap<u32, u64> =
            fragment.runs.iter().filter_map(|run| Some((run.track, end(run)?))).collect();
        let follows =
            self.last.take().filter(|(msn, _)| msn + 1 == case.listing.msn && !case.listing.discontinuity);
        if let Some((_, before)) = &follows {
            for run in &fragment.runs {
                let (Some(first), Some(due)) = (run.samples.first(), before.get(&run.track)) else {
                    continue;
                };
                ledger.judge(Rule::Mp04, first.dts == *due, || {
                    let said = format!(
                        "track {} starts at {}, the segment before ends at {due}",
                        run.track, first.dts
                    );
                    evidence(said)
                });
            }
        } else {
            (self.drift_us, self.last_key_us, self.last_sequence) = (0.0, None, None);
        }
        let rising =
            fragment.sequence.first().zip(self.last_sequence).is_none_or(|(first, last)| *first > last);
        ledger.judge(Rule::Mp07, rising, || {
            evidence(format!(
                "mfhd sequence number {:?} after {:?}",
                fragment.sequence.first(),
                self.last_sequence
            ))
        });
        self.last_sequence = fragment.sequence.last().copied();
        self.last = Some((case.listing.msn, ends));
        self.true_duration(fragment, init, case, ledger);
        if let Some((run, track)) = fragment.run(init, Media::Video) {
            self.pictures(run, &track, case, ledger);
        }
    }

    fn true_duration(&mut self, fragment: &Fragment, init: &Init, case: &Case, ledger: &mut Ledger) {
        let leading = fragment.run(init, Media::Video).or_else(|| fragment.run(init, Media::Audio));
        let Some((run, track)) = leading else { return };
        let ticks: u64 = run.samples.iter().map(|sample| u64::from(sample.duration)).sum();
        let scale = 1e6 / f64::from(track.timescale.max(1));
        let frame_us = ticks as f64 * scale / run.samples.len().max(1) as f64;
        self.drift_us += case.listing.duration.as_secs_f64() * 1e6 - ticks as f64 * scale;
        ledger.judge(Rule::Syn12, self.drift_us.abs() <= frame_us, || {
            let said = format!(
                "EXTINF is {:.0} us off since the last discontinuity, a frame is {frame_us:.0} us",
                self.drift_us
            );
            Evidence::of(case.request.clone(), said)
        });
        if track.media == Media::Video {
            for sample in &run.samples {
                let rate = u64::from(track.timescale) * 1000 / u64::from(sample.duration.max(1));
                if self.rates.len() < RATES_MAX || self.rates.contains_key(&rate) {
                    *self.rates.entry(rate).or_default() += 1;
                }
            }
        }
    }

    fn pictures(&mut self, run: &Run, track: &Track, case: &Case, ledger: &mut Ledger) {
        let evidence = |said: String| Evidence::of(case.request.clone(), said);
        let first = run.samples.first();
        let starts = first.is_some_and(|first| first.is_sync() && first.key != Some(false));
        ledger.judge(Rule::Mp08, starts, || evidence(format!("its first sample is no IDR: {first:?}")));
        for sample in run.samples.iter().filter(|sample| sample.is_sync()) {
            let at = micros(i64::try_from(sample.dts).unwrap_or(i64::MAX), track.timescale);
            let frame = micros(i64::from(sample.duration), track.timescale);
            if let Some(before) = self.last_key_us {
                let apart = at - before;
                ledger.judge(Rule::Mp10, apart >= 1_000_000 - frame && apart <= 2_000_000 + frame, || {
                    evidence(format!("{apart} us between IDRs"))
                });
            }
            self.last_key_us = Some(at);
        }
    }
}

fn end(run: &Run) -> Option<u64> {
    run.samples.last().map(|last| last.dts + u64::from(last.duration))
}

fn structure(fragment: &Fragment, case: &Case, ledger: &mut Ledger) {
    let evidence = |said: String| Evidence::of(case.request.clone(), said);
    ledger.judge(Rule::Mp03, fragment.addressing.is_empty(), || evidence(fragment.addressing.join("; ")));
    let rising = fragment.sequence.windows(2).all(|pair| pair[0] < pair[1]);
    ledger.judge(Rule::Mp07, fragment.structure.is_empty() && rising, || {
        evidence(format!("{} (sequence numbers {:?})", fragment.structure.join("; "), fragment.sequence))
    });
    for run in &fragment.runs {
        // Within a segment chunks follow each other: a hole shows as a tfdt that is not the end before it.
        let gap =
            run.samples.windows(2).find(|pair| pair[1].dts != pair[0].dts + u64::from(pair[0].duration));
        ledger.judge(Rule::Mp04, gap.is_none(), || {
            evidence(format!("track {}: a hole inside the segment: {gap:?}", run.track))
        });
    }
}

fn parts(fragment: &Fragment, init: &Init, case: &Case, ledger: &mut Ledger) {
    let listed = &case.listing.parts;
    if listed.is_empty() || case.parts.len() != listed.len() {
        for rule in [Rule::Mp05, Rule::Mp06, Rule::Mp09, Rule::Pt05, Rule::Pt06] {
            ledger.skip(rule, "no segment was seen with all of its parts");
        }
        return;
    }
    let mut joined: Vec<u8> = Vec::new();
    let mut samples: Vec<Run> = Vec::new();
    let mut complete = true;
    for (part, bytes) in listed.iter().zip(&case.parts) {
        let Some(bytes) = bytes else {
            complete = false;
            continue;
        };
        joined.extend_from_slice(bytes);
        let evidence = |said: String| Evidence::of(format!("{} of {}", part.uri, case.request), said);
        match Fragment::read(bytes, init) {
            Err(error) => ledger.fail(Rule::Mp07, evidence(error)),
            Ok(read) => {
                ledger.judge(Rule::Mp07, read.structure.is_empty(), || evidence(read.structure.join("; ")));
                ledger.judge(Rule::Mp03, read.addressing.is_empty(), || evidence(read.addressing.join("; ")));
                random_access(part.independent, (&read, init), &evidence, ledger);
                for run in read.runs {
                    match samples.iter_mut().find(|known| known.track == run.track) {
                        Some(known) => known.samples.extend(run.samples),
                        None => samples.push(run),
                    }
                }
            }
        }
    }
    if complete {
        let evidence = |said: &str| Evidence::of(case.request.clone(), said);
        ledger
            .judge(Rule::Mp05, samples == fragment.runs, || evidence("the samples of its parts are others"));
        ledger.judge(Rule::Mp06, joined == case.body, || {
            evidence(&format!(
                "{} bytes, its parts together {} bytes, or others",
                case.body.len(),
                joined.len()
            ))
        });
    }
}

fn random_access(
    independent: bool,
    (part, init): (&Fragment, &Init),
    evidence: &dyn Fn(String) -> Evidence,
    ledger: &mut Ledger,
) {
    let Some((run, _)) = part.run(init, Media::Video) else {
        let audio =
            part.run(init, Media::Audio).is_some_and(|(run, _)| run.samples.iter().any(Sample::is_sync));
        return ledger.judge(Rule::Pt05, !audio || independent, || {
            evidence("audio frames, no INDEPENDENT=YES".to_owned())
        });
    };
    let contains = run.samples.iter().any(|sample| sample.is_sync() && sample.key != Some(false));
    ledger.judge(Rule::Pt05, !contains || independent, || {
        evidence("an IDR in it, no INDEPENDENT=YES".to_owned())
    });
    let Some(first) = run.samples.first() else { return };
    if independent {
        let starts = first.is_sync() && first.key != Some(false);
        ledger.judge(Rule::Pt06, starts, || {
            evidence("INDEPENDENT=YES and its first sample is no IDR".to_owned())
        });
        ledger.judge(Rule::Mp09, !first.is_sync() || first.depends_on() == 2, || {
            evidence(format!("sample_depends_on of the IDR is {}", first.depends_on()))
        });
    } else {
        let honest = !first.is_sync() || first.key == Some(true);
        ledger.judge(Rule::Mp09, honest, || {
            evidence("a first sample that says it is a sync sample and is none".to_owned())
        });
    }
}

/// Reasons for what was not there to be judged.
pub(crate) fn explain(cases: u64, renditions: usize, ledger: &mut Ledger) {
    if cases == 0 {
        for rule in [
            Rule::Mp01,
            Rule::Mp02,
            Rule::Mp03,
            Rule::Mp04,
            Rule::Mp05,
            Rule::Mp06,
            Rule::Mp07,
            Rule::Mp08,
            Rule::Mp09,
            Rule::Mp10,
            Rule::Mp11,
            Rule::Mp13,
            Rule::Syn12,
            Rule::Pt05,
            Rule::Pt06,
        ] {
            ledger.skip(rule, "no segment was completed during the observation");
        }
    }
    let reason =
        if renditions < 2 { "there is one media playlist" } else { "no segment of two renditions was seen" };
    for rule in [Rule::Mp12, Rule::Mv07, Rule::Mv07Apple, Rule::Pdt02] {
        ledger.skip(rule, reason);
    }
    for rule in [Rule::Mp08, Rule::Mp10, Rule::Mp09, Rule::Pt06] {
        ledger.skip(rule, "no video was seen");
    }
    ledger.skip(Rule::Ev12, "the format did not change");
    ledger.skip(Rule::Mp04, "no two segments in a row were completed");
}
