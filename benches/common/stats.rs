//! Medians and quantiles.

/// A table's cell.
pub(crate) fn shown(value: Option<f64>, digits: usize) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.digits$}"))
}

/// `None` if one of them is.
pub(crate) fn median(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let values = sorted(values.collect::<Option<Vec<_>>>()?);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => Some((values.get(middle.checked_sub(1)?)? + values.get(middle)?) / 2.0),
        _ => values.get(middle).copied(),
    }
}

/// The smallest value that so large a part does not exceed.
pub(crate) fn quantile(sorted: &[f64], at: f64) -> f64 {
    let place = (sorted.len() as f64 * at).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

pub(crate) fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
}
