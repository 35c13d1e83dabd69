//! HTTP dates in their three forms (RFC 9110 §5.6.7), as seconds since 1970.
//!
//! What a date or its absence means is left to `freshness`. Strict in structure and without case in letters
//! (RFC 9111 §4.2); a zone other than GMT is invalid. The weekday is redundant and only has to be one.

const DAY: i64 = 86_400;
const MONTHS: [&[u8; 3]; 12] =
    [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];
const WEEKDAYS: [&[u8]; 7] =
    [b"sunday", b"monday", b"tuesday", b"wednesday", b"thursday", b"friday", b"saturday"];
/// 9999-12-31 23:59:59, the last second that the four-digit year can tell.
const LAST: i64 = 253_402_300_799;

/// Reads an IMF-fixdate, RFC 850 or asctime date; `wall` (unix seconds) decides the century of a two-digit year
/// (RFC 9110 §5.6.7).
pub fn parse(value: &[u8], wall: i64) -> Option<i64> {
    let text = value.trim_ascii().to_ascii_lowercase();
    let mut rest = text.as_slice();
    match text.iter().position(|b| matches!(b, b',' | b' '))? {
        3 if text.get(3) == Some(&b',') => {
            weekday(&mut rest, 3)?;
            imf_fixdate(rest)
        }
        3 => {
            weekday(&mut rest, 3)?;
            asctime(rest)
        }
        length => {
            let name = take(&mut rest, length)?;
            WEEKDAYS.contains(&name).then_some(())?;
            rfc850(rest, wall)
        }
    }
}

/// Writes an IMF-fixdate (RFC 9110 §5.6.7); moments outside the years 1970 to 9999 become the nearest within.
pub fn format(wall: i64) -> String {
    let wall = wall.clamp(0, LAST);
    let (days, second) = (wall.div_euclid(DAY), wall.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    // 1970-01-01 was a Thursday.
    let weekday = WEEKDAYS.get(((days + 4) % 7) as usize).and_then(|name| name.get(..3)).unwrap_or_default();
    let month = MONTHS.get((month - 1) as usize).map_or(b"".as_slice(), |name| name.as_slice());
    format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        capitalised(weekday),
        capitalised(month),
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

fn capitalised(word: &[u8]) -> String {
    let mut letters = word.iter().map(|b| char::from(*b));
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

/// `, 06 nov 1994 08:49:37 gmt`
fn imf_fixdate(mut rest: &[u8]) -> Option<i64> {
    exact(&mut rest, b", ")?;
    let day = number(&mut rest, 2)?;
    exact(&mut rest, b" ")?;
    let month = month(&mut rest)?;
    exact(&mut rest, b" ")?;
    let year = number(&mut rest, 4)?;
    exact(&mut rest, b" ")?;
    let second = time(&mut rest)?;
    (rest == b" gmt").then_some(())?;
    moment(year, month, day, second)
}

/// `, 06-nov-94 08:49:37 gmt`
fn rfc850(mut rest: &[u8], wall: i64) -> Option<i64> {
    exact(&mut rest, b", ")?;
    let day = number(&mut rest, 2)?;
    exact(&mut rest, b"-")?;
    let month = month(&mut rest)?;
    exact(&mut rest, b"-")?;
    let two_digits = number(&mut rest, 2)?;
    exact(&mut rest, b" ")?;
    let second = time(&mut rest)?;
    (rest == b" gmt").then_some(())?;
    let this_year = civil(wall.clamp(0, LAST).div_euclid(DAY)).0;
    let mut year = this_year - this_year % 100 + two_digits;
    // RFC 9110 §5.6.7: more than 50 years ahead is the most recent past year with the same digits.
    if year > this_year + 50 {
        year -= 100;
    }
    moment(year, month, day, second)
}

/// ` nov  6 08:49:37 1994`
fn asctime(mut rest: &[u8]) -> Option<i64> {
    exact(&mut rest, b" ")?;
    let month = month(&mut rest)?;
    exact(&mut rest, b" ")?;
    let day = match rest {
        [b' ', after @ ..] => {
            rest = after;
            number(&mut rest, 1)?
        }
        _ => number(&mut rest, 2)?,
    };
    exact(&mut rest, b" ")?;
    let second = time(&mut rest)?;
    exact(&mut rest, b" ")?;
    let year = number(&mut rest, 4)?;
    rest.is_empty().then_some(())?;
    moment(year, month, day, second)
}

fn moment(year: i64, month: i64, day: i64, second: i64) -> Option<i64> {
    let days = days_from_civil(year, month, day);
    // A day that the month does not have comes back as another date.
    (civil(days) == (year, month, day)).then_some(days * DAY + second)
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar (years counted from March).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The year, month and day of a number of days since 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn time(rest: &mut &[u8]) -> Option<i64> {
    let hour = number(rest, 2)?;
    exact(rest, b":")?;
    let minute = number(rest, 2)?;
    exact(rest, b":")?;
    let second = number(rest, 2)?;
    // RFC 9110 §5.6.7: 60 is a leap second.
    (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3600 + minute * 60 + second)
}

fn weekday(rest: &mut &[u8], length: usize) -> Option<()> {
    let name = take(rest, length)?;
    WEEKDAYS.iter().any(|weekday| weekday.starts_with(name)).then_some(())
}

fn month(rest: &mut &[u8]) -> Option<i64> {
    let name = take(rest, 3)?;
    MONTHS.iter().position(|month| month.as_slice() == name).map(|index| index as i64 + 1)
}

fn number(rest: &mut &[u8], digits: usize) -> Option<i64> {
    take(rest, digits)?
        .iter()
        .try_fold(0, |sum, b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')))
}

fn exact(rest: &mut &[u8], text: &[u8]) -> Option<()> {
    *rest = rest.strip_prefix(text)?;
    Some(())
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: i64 = 784_111_777;
    const WALL: i64 = 1_795_000_000; // 2026

    #[test]
    fn the_three_forms_are_one_moment_in_any_case_rfc9110_5_6_7() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "sUN, 06 nOV 1994 08:49:37 gmt",
        ] {
            assert_eq!(parse(text.as_bytes(), WALL), Some(EXAMPLE), "{text}");
        }
    }

    #[test]
    fn two_digit_years_lie_at_most_50_years_ahead_rfc9110_5_6_7() {
        let year = |text: &str| civil(parse(text.as_bytes(), WALL).unwrap().div_euclid(DAY)).0;
        assert_eq!(year("Friday, 01-Jan-76 00:00:00 GMT"), 2076);
        assert_eq!(year("Friday, 01-Jan-77 00:00:00 GMT"), 1977);
        assert_eq!(year("Friday, 01-Jan-00 00:00:00 GMT"), 2000);
    }

    #[test]
    fn what_is_no_http_date_is_refused() {
        for text in [
            "",
            "0",
            "-1",
            "Sun",
            "Sun,",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 AEST",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun,  06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Foo, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov -994 08:49:37 GMT",
        ] {
            assert_eq!(parse(text.as_bytes(), WALL), None, "{text}");
        }
    }

    #[test]
    fn leap_days_and_far_years_are_exact() {
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Tue, 29 Feb 2000 00:00:00 GMT", 951_782_400),
            ("Fri, 31 Dec 9999 23:59:59 GMT", LAST),
        ] {
            assert_eq!(parse(text.as_bytes(), WALL), Some(seconds));
            assert_eq!(format(seconds), text);
        }
        assert_eq!(parse(b"Mon, 29 Feb 1900 00:00:00 GMT", WALL), None);
        assert!(parse(b"Sat, 01 Jan 0000 00:00:00 GMT", WALL).unwrap() < 0);
        assert_eq!(format(i64::MIN), format(0));
        assert_eq!(format(i64::MAX), format(LAST));
    }
}
