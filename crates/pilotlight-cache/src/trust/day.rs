//! Days and times as people write them, in UTC.

const DAY_MS: u64 = 24 * 3600 * 1000;

/// Until when `text` lasts, in milliseconds since the Unix epoch: `2027-01-31` to the end of that day in UTC,
/// `2027-01-31T12:00:00Z` or `...+01:00` to that moment. `None` for anything else.
#[must_use]
pub fn expiry_of(text: &str) -> Option<u64> {
    let date = text.get(..10)?;
    let midnight_ms = u64::try_from(days(date)?).ok()?.checked_mul(DAY_MS)?;
    let rest = text.get(10..)?;
    if rest.is_empty() {
        return Some(midnight_ms + DAY_MS - 1);
    }
    let time = rest.strip_prefix(['T', 't', ' '])?;
    let offset_at = time.find(['Z', 'z', '+', '-'])?;
    let (time, offset) = time.split_at_checked(offset_at)?;
    let mut parts = time.split(':');
    let (hours, minutes) = (number(parts.next()?, 23)?, number(parts.next()?, 59)?);
    // Parts of a second are nobody's business here.
    let seconds = parts.next().map_or(Some(0), |text| number(text.split('.').next()?, 60))?;
    if parts.next().is_some() {
        return None;
    }
    let at_ms = midnight_ms + (hours * 3600 + minutes * 60 + seconds) * 1000;
    let (sign, offset) = offset.split_at_checked(1)?;
    if sign.eq_ignore_ascii_case("z") {
        return offset.is_empty().then_some(at_ms);
    }
    let (hours, minutes) = offset.split_once(':')?;
    let offset_ms = (number(hours, 23)? * 3600 + number(minutes, 59)? * 60) * 1000;
    if sign == "+" { at_ms.checked_sub(offset_ms) } else { at_ms.checked_add(offset_ms) }
}

/// The day of a moment, in UTC: `2027-01-31`.
#[must_use]
pub fn day_of(ms: u64) -> String {
    // Years of March to February, so that the odd day is the last; eras of 400 of them have 146,097 days.
    let days = ms / DAY_MS + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Days since the Unix epoch, of `YYYY-MM-DD` from then on.
fn days(date: &str) -> Option<i64> {
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || year.len() != 4 {
        return None;
    }
    let (year, month, day) = (number(year, 9999)?, number(month, 12)?, number(day, 31)?);
    if month == 0 || day == 0 {
        return None;
    }
    let (year, month, day) = (year.cast_signed(), month.cast_signed(), day.cast_signed());
    let year_from_march = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year_from_march.div_euclid(400), year_from_march.rem_euclid(400));
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    // The 31st of a short month is no day.
    let is_a_day = u64::try_from(days).is_ok_and(|days| day_of(days * DAY_MS) == date);
    is_a_day.then_some(days)
}

fn number(text: &str, max: u64) -> Option<u64> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_digits && *number <= max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_four_centuries_is_written_and_read_as_itself() {
        let mut previous = String::new();
        for day in 0..146_097 {
            let text = day_of(day * DAY_MS + 5);
            assert!(previous < text, "{previous} before {text}");
            assert_eq!(expiry_of(&text), Some((day + 1) * DAY_MS - 1), "{text}");
            previous = text;
        }
        assert_eq!((day_of(0).as_str(), day_of(951_782_400_000).as_str()), ("1970-01-01", "2000-02-29"));
    }

    #[test]
    fn a_moment_counts_to_the_second_with_its_offset() {
        for (text, expected) in [
            ("1970-01-01", Some(DAY_MS - 1)),
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01 01:00:01.5Z", Some(3_601_000)),
            ("1970-01-01T01:00:00+01:00", Some(0)),
            ("1970-01-01T00:00:00-00:30", Some(1_800_000)),
            ("1970-01-01T00:00:00+01:00", None),
            ("1970-01-01T00:00:00", None),
            ("2027-02-29", None),
            ("2027-13-01", None),
            ("2027-1-1", None),
            ("1969-12-31", None),
            ("2027-01-01x", None),
            ("tomorrow", None),
            ("", None),
        ] {
            assert_eq!(expiry_of(text), expected, "{text}");
        }
    }
}
