//! What was measured, and what follows from it over the rounds.

use std::fmt::Display;

/// One number of one round.
#[derive(Debug)]
struct Figure {
    workload: String,
    peer: &'static str,
    round: usize,
    name: &'static str,
    value: f64,
}

/// All numbers, and why some are missing.
#[derive(Debug, Default)]
pub struct Figures {
    figures: Vec<Figure>,
    failures: Vec<(String, &'static str, String)>,
}

impl Figures {
    /// Values that are no numbers say that there is nothing: no proxy whose CPU it could be.
    pub fn add(&mut self, workload: &str, peer: &'static str, round: usize, values: &[(&'static str, f64)]) {
        let values = values.iter().filter(|(_, value)| value.is_finite());
        let figure = |&(name, value)| Figure { workload: workload.to_owned(), peer, round, name, value };
        self.figures.extend(values.map(figure));
    }

    /// Says why there is nothing to add.
    pub fn fail(&mut self, workload: &str, peer: &'static str, why: &dyn Display) {
        self.failures.push((workload.to_owned(), peer, why.to_string()));
    }

    /// The reasons of one workload, each once, as `peer: reason`.
    pub fn failures(&self, workload: &str) -> Vec<String> {
        let own = self.failures.iter().filter(|(of, ..)| of == workload);
        let mut reasons: Vec<_> = own.map(|(_, peer, why)| format!("{peer}: {why}")).collect();
        reasons.dedup();
        reasons
    }

    /// The round and the value of each round that has one.
    fn rounds(&self, workload: &str, peer: &str, name: &str) -> Vec<(usize, f64)> {
        let own = |figure: &&Figure| figure.workload == workload && figure.peer == peer && figure.name == name;
        self.figures.iter().filter(own).map(|figure| (figure.round, figure.value)).collect()
    }

    pub fn median(&self, workload: &str, peer: &str, name: &str) -> Option<f64> {
        median(self.rounds(workload, peer, name).into_iter().map(|(_, value)| value).collect())
    }

    /// All rounds, with so many digits after the point.
    pub fn each(&self, workload: &str, peer: &str, name: &str, digits: usize) -> String {
        let values = self.rounds(workload, peer, name);
        values.iter().map(|(_, value)| format!("{value:.digits$}")).collect::<Vec<_>>().join(" ")
    }

    /// `peer`'s value over that of `base` in the same round, for each round that has both.
    pub fn ratios(&self, workload: &str, peer: &str, base: &str, name: &str) -> Vec<f64> {
        let bases = self.rounds(workload, base, name);
        let ratio = |(round, value): (usize, f64)| {
            let (_, base) = bases.iter().find(|(other, base)| *other == round && *base > 0.0)?;
            Some(value / base)
        };
        self.rounds(workload, peer, name).into_iter().filter_map(ratio).collect()
    }

    /// All values, one in a line.
    pub fn csv(&self) -> String {
        let line = |figure: &Figure| {
            let Figure { workload, peer, round, name, value } = figure;
            format!("\"{workload}\",{peer},{round},{name},{value}\n")
        };
        "workload,peer,round,figure,value\n".to_owned() + &self.figures.iter().map(line).collect::<String>()
    }
}

/// Of an even number of values, what lies between the two in the middle; `None` of nothing.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}
