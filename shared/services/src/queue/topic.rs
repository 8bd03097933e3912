//! Topics of events: words joined by dots, and patterns that match them as RabbitMQ's topic exchanges do.

/// Whether `topic` matches `pattern`: `*` stands for exactly one word, `#` for any number of words, also none.
pub fn matches(pattern: &str, topic: &str) -> bool {
    let topic: Vec<&str> = if topic.is_empty() { Vec::new() } else { topic.split('.').collect() };
    // `reached[i]`: the pattern's words so far can match the topic's first i words.
    let mut reached = vec![false; topic.len() + 1];
    reached[0] = true;
    for word in pattern.split('.').filter(|_| !pattern.is_empty()) {
        let mut next = vec![false; topic.len() + 1];
        for i in 0..=topic.len() {
            next[i] = match word {
                "#" => reached[i] || (i > 0 && next[i - 1]),
                "*" => i > 0 && reached[i - 1],
                word => i > 0 && reached[i - 1] && topic[i - 1] == word,
            };
        }
        reached = next;
    }
    reached[topic.len()]
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_in_a_topic_exchange() {
        let cases = [
            ("a.b.c", "a.b.c", true),
            ("a.b", "a.b.c", false),
            ("a.b.c", "a.b", false),
            ("*.b.*", "a.b.c", true),
            ("*", "a.b", false),
            ("*", "", false),
            ("#", "", true),
            ("#", "a.b.c", true),
            ("a.#", "a", true),
            ("a.#", "a.b.c", true),
            ("a.#", "b.a", false),
            ("#.c", "a.b.c", true),
            ("#.b.#", "a.b.c", true),
            ("#.b.#", "a.c", false),
            ("*.#.*", "a", false),
            ("*.#.*", "a.b", true),
            ("", "", true),
            ("", "a", false),
        ];
        for (pattern, topic, expected) in cases {
            assert_eq!(matches(pattern, topic), expected, "{pattern:?} on {topic:?}");
        }
    }
}
