//! `[class.NAME]`: the shares that requests have while they wait.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::Sink;
use crate::key::{Place, check_name};
use crate::model::Class;
use crate::reader::Reader;
use crate::values::integer;

/// Most classes: each has a series per pool in the metrics.
const MOST: usize = 64;

/// `[class.NAME]` as far as it is valid.
pub(crate) struct ClassSection {
    pub(crate) name: String,
    place: Place,
    /// The whole, if all of it is valid.
    class: Option<Class>,
}

impl ClassSection {
    pub(crate) fn read(name: &str, table: &mut Reader<'_>) -> Self {
        let valid_name =
            check_name("a class", name).map_err(|message| table.sink().report(table.place(), message));
        let weight = table.read("weight", integer(1..=1000)).or(Class::default().weight);
        let class =
            || Some(Class { name: valid_name.ok().map(|()| name.to_owned())?, weight: weight?.value });
        Self { name: name.to_owned(), place: table.place().clone(), class: class() }
    }
}

/// There are not too many, the default one included.
pub(crate) fn check_number(classes: &[ClassSection], sink: &Sink) {
    let unwritten = classes.iter().all(|class| class.name != Class::DEFAULT);
    let number = classes.len() + usize::from(unwritten);
    if number > MOST
        && let Some(last) = classes.iter().max_by_key(|class| class.place.offset)
    {
        let message = format!("there are {number} classes, \"default\" included, must be at most {MOST}");
        sink.report(&last.place, message);
    }
}

/// All classes by name, the default one among them. `None`: one is invalid.
pub(crate) fn into_classes(sections: Vec<ClassSection>) -> Option<BTreeMap<String, Arc<Class>>> {
    let written = sections.into_iter().map(|section| section.class);
    let classes: Vec<_> = written.collect::<Option<_>>()?;
    let all = [Class::default()].into_iter().chain(classes);
    Some(all.map(|class| (class.name.clone(), Arc::new(class))).collect())
}
