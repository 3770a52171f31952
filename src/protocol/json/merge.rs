//! Two objects as one.

use super::{
    members::Members,
    text::{Object, is_null, is_object},
};

/// Two objects as one: objects that stand in both are merged likewise, else the newer value counts, unless it
/// is null. Objects that are deeper or larger than any metadata are replaced whole: recursion and search have an
/// end.
pub(crate) fn merged(old: &str, new: &str) -> String {
    merged_to(old, new, 16)
}

fn merged_to(old: &str, new: &str, depth: usize) -> String {
    if is_null(new) {
        return old.to_owned();
    }
    let (true, true, true) = (depth > 0, is_object(old), is_object(new)) else { return new.to_owned() };
    let (Some(old), Some(newer)) = (small(old), small(new)) else { return new.to_owned() };
    let mut object = Object::default();
    for member in &old.0 {
        match newer.get(&member.name) {
            Some(value) => object.member(member.key, &merged_to(member.value, value, depth - 1)),
            None => object.member(member.key, member.value),
        }
    }
    for member in newer.0.iter().filter(|member| old.get(&member.name).is_none()) {
        object.member(member.key, member.value);
    }
    object.end()
}

fn small(object: &str) -> Option<Members<'_>> {
    Members::read(object).filter(|members| members.0.len() <= 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_as_deep_as_you_like_are_merged_without_recursing_all_the_way() {
        let deep = "{\"a\":".repeat(100_000) + "1" + &"}".repeat(100_000);
        assert_eq!(merged(&deep, &deep), deep);
    }

    #[test]
    fn merging_goes_into_objects_and_a_null_takes_nothing_away() {
        let merged = merged(r#"{"g":{"a":"1","b":2},"x":1}"#, r#"{"g":{"b":3,"c":4},"x":null,"y":[5]}"#);
        assert_eq!(merged, r#"{"g":{"a":"1","b":3,"c":4},"x":1,"y":[5]}"#);
    }
}
