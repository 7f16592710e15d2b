"""Bugs that were planted in queries, and the test that catches each; see planted_bugs.py.

`python -m tests.client.planted_query_bugs [WORD ...]` plants them.
"""

from __future__ import annotations

from tests.client.planted_bugs import PlantedBug, plant

REQUESTS = "tests/client/test_query_requests.py"
REPLICA = "tests/client/test_read_replica.py"

BUGS = [
    PlantedBug(
        "a text under tags is taken for a list",
        "reading.py",
        "if isinstance(tags, list | tuple) else ()",
        "if isinstance(tags, list | tuple) else tags or ()",
        f"{REQUESTS}::test_only_an_array_of_strings_is_a_list_of_tags",
    ),
    PlantedBug(
        "the beginning of a symbol is found anywhere in it",
        "reading.py",
        "signal.symbol.startswith(self.symbol_prefix)",
        "self.symbol_prefix.upper() in signal.symbol",
        f"{REQUESTS}::test_a_filter_tells_what_the_database_would",
    ),
    PlantedBug(
        "an upper bound is exclusive",
        "reading.py",
        "signal.price <= self.max_price",
        "signal.price < self.max_price",
        f"{REQUESTS}::test_a_filter_tells_what_the_database_would",
    ),
    PlantedBug(
        "a misspelt option is no filter",
        "questions.py",
        "    require_known(options, QueryOptions)\n    parameters = query_parameters(options)\n",
        "    parameters = query_parameters(options)\n",
        f"{REQUESTS}::test_an_option_that_there_is_not_is_refused",
    ),
    PlantedBug(
        "an empty page ends the answer",
        "query.py",
        "            yield page\n            following = following.after(page)\n",
        "            yield page\n"
        "            following = following.after(page) if page.signals else None  # type: ignore\n",
        f"{REQUESTS}::test_the_blocking_face_goes_on_after_an_empty_page",
    ),
    PlantedBug(
        "an empty page ends the answer of asyncio",
        "reader.py",
        "            yield page\n            following = following.after(page)\n",
        "            yield page\n"
        "            following = following.after(page) if page.signals else None  # type: ignore\n",
        f"{REQUESTS}::test_an_empty_page_with_a_cursor_is_not_the_last",
    ),
    PlantedBug(
        "a replica that is behind is believed",
        "reader.py",
        "if found is not None and _seq_of(found, call) >= call.at_least_seq:",
        "if found is not None:",
        f"{REPLICA}::test_a_replica_that_is_behind_the_wanted_seq_is_not_believed",
    ),
    PlantedBug(
        "pages go back in time",
        "reader.py",
        "            at_least_seq=max(self.at_least_seq, page.last_seq),\n",
        "            at_least_seq=self.at_least_seq,\n",
        f"{REPLICA}::test_pages_never_go_back_in_time",
    ),
    PlantedBug(
        "a status of the replica is taken for fresh",
        "reader.py",
        "        if self._replica and not call.primary_only:\n",
        "        if self._replica:\n",
        f"{REPLICA}::test_a_status_that_has_to_be_fresh_is_asked_of_the_primary",
    ),
    PlantedBug(
        "a manager reads what a replica is behind with",
        "manager/store.py",
        "client.query(replica=False)",
        "client.query()",
        "tests/client/manager/test_supabase_store.py"
        "::test_a_manager_never_reads_a_replica_that_may_be_behind",
    ),
    PlantedBug(
        "a replica that refuses a question is believed",
        "replica.py",
        "                return None\n            answer = None\n",
        "                return None\n            raise\n",
        f"{REPLICA}::test_only_what_the_primary_finds_wrong_with_a_question_is_raised",
    ),
    PlantedBug(
        "everyone tries a replica that hangs",
        "replica.py",
        " or self._is_tried:",
        ":",
        f"{REPLICA}::test_while_a_replica_is_tried_the_others_do_not_wait_for_it",
    ),
    PlantedBug(
        "a misspelt option of a series is no filter",
        "time_series.py",
        "    require_known(options, kind)\n",
        "",
        "tests/client/test_time_series_requests.py::test_an_option_that_no_series_has_is_refused",
    ),
    PlantedBug(
        "a failed replica is asked every time",
        "replica.py",
        "        self._rests_until = self._clock() + self._rest\n",
        "",
        f"{REPLICA}::test_a_replica_that_fails_is_left_alone_for_a_while",
    ),
    PlantedBug(
        "quotes in a value end it",
        "replica.py",
        """.replace('"', '\\\\"')""",
        "",
        f"{REPLICA}::test_the_replica_is_asked_by_get_as_postgresql_reads_values",
    ),
]

if __name__ == "__main__":
    plant(BUGS)
