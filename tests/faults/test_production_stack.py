"""Faults of vLLM production-stack's router, each with the tests that show it is not here.

Source: its issues and pull requests (numbers), and its code at a6c01db. What is
listed is shown; a fault that no test shows yet is not listed.
"""

import importlib

import pytest

FAULTS: dict[str, tuple[str, ...]] = {
    # memory and counts
    "#707, #1072, #1001: in-flight gauges drift on errors and disconnects": (
        "core.test_fleet:test_ticket_gives_back_once_whatever_is_called",
        "proxy.test_failures:test_client_that_leaves_aborts_its_engine_request",
        "faults.test_matrix:test_fault_costs_no_more_than_it_may",
    ),
    "#687, #711: prefix trie without bound": (
        "core.test_approximate_view:test_the_bound_drops_the_least_recently_used_from_its_end",
        "core.test_exact_view:test_passing_the_bound_drops_the_oldest_and_costs_exactness",
        "tokens.test_cache:test_never_passes_its_limit",
    ),
    "series and statistics of engines that left are kept": (
        "test_engine_set:test_engine_that_is_told_no_more_leaves_nothing_behind",
        "proxy.test_series:test_series_are_dropped_by_the_labels_given",
    ),
    "series for every model name that clients make up": (
        "proxy.test_stack_metrics:test_clients_cannot_make_series_without_end",
    ),
    "statistics per request cost rate times window": (
        "proxy.test_recent:test_slots_are_bounded_whatever_the_rate",
    ),
    "tokens of streams uncounted, averages of -1, engines always healthy": (
        "proxy.test_stack_metrics:test_tokens_are_counted_in_whole_answers_and_streams",
        "test_stack_gauges:test_what_ended_lately_is_averaged",
        "test_stack_gauges:test_engine_that_takes_no_requests_is_not_healthy",
    ),
    "streams whose clients left count as answered": (
        "proxy.test_stack_metrics:test_client_that_leaves_is_neither_success_nor_error",
    ),
    "a scrape stops the loop for 100 ms and shows the host as the router": (
        "test_own_usage:test_cpu_is_a_share_of_the_cpus_since_the_last_look",
        "test_own_usage:test_memory_is_a_share_of_the_limit",
    ),
    "a copy of every streamed answer is kept; slow clients fill memory": (
        "proxy.test_backpressure:test_slow_client_stops_its_engine",
    ),
    # engines that fail
    "#749, #706: one hung engine hangs its clients, there are no timeouts": (
        "proxy.test_timeouts:test_engine_that_does_not_answer_in_time_is_given_up",
        "proxy.test_timeouts:test_stream_that_stops_is_ended_with_an_error",
        "proxy.test_circuits:test_engine_that_hangs_with_streams_waiting_gets_no_more",
        "engines.test_watch_health:"
        "test_engine_that_never_answers_is_down_and_its_waiting_requests_move",
    ),
    "#420, #428: requests go to dead engines": (
        "test_assembly:test_engine_that_dies_is_left_out_and_taken_back",
        "proxy.test_retries:test_dead_engines_cost_neither_retries_nor_budget",
    ),
    "#631, #815: health checks are inference, or do not happen": (
        "engines.test_watch_health:"
        "test_engine_that_says_it_is_not_healthy_is_down_and_costs_no_inference",
    ),
    "#839, #939: failover on transport errors only, no retry on 5xx or 429, no backoff": (
        "proxy.test_retries:test_what_fails_before_its_first_byte_is_answered_by_another_engine",
        "proxy.test_retries:test_retries_end_when_the_budget_is_spent",
        "proxy.test_circuits:test_engine_that_is_full_gets_a_pause",
    ),
    "an engine that refuses gives a plain-text 500": (
        "proxy.test_failures:test_502_when_every_engine_fails",
    ),
    "an engine that dies mid-stream ends the stream without a word": (
        "proxy.test_broken_answers:"
        "test_stream_that_breaks_ends_with_an_error_event_and_a_closed_connection",
        "proxy.test_broken_answers:test_a_client_library_reads_the_error_event",
    ),
    "#656, #668: one slow engine holds up the watch of all; scrapes are serial": (
        "test_assembly:test_slow_metrics_of_one_engine_delay_no_other",
    ),
    # clients
    "#867, #1040: a client that leaves does not end its request at the engine": (
        "proxy.test_failures:test_client_that_leaves_aborts_its_engine_request",
        "proxy.test_timeouts:test_client_that_reads_nothing_is_cut_off_and_its_request_aborted",
    ),
    "no limit of body size, headers, URL or nesting": (
        "proxy.test_edge:test_too_large_body_is_413_and_closes",
        "proxy.test_smuggling:test_what_passes_a_limit_is_refused_by_its_name",
        "proxy.test_smuggling:test_a_line_without_end_is_not_read_for_ever",
    ),
    "shutdown waits without bound, then streams are cut": (
        "proxy.test_failures:test_stop_lets_running_streams_end",
        "test_signals:test_sigterm_takes_readiness_then_the_port_and_lets_streams_end",
        "test_signals:test_what_runs_longer_than_the_drain_is_told_why_it_ends",
    ),
    "#855, #626, #876, #905: no queue, no admission, no shedding": (
        "proxy.test_admission:test_full_is_429_with_retry_after_and_the_rest_is_answered_in_turn",
        "proxy.test_admission:test_a_client_that_leaves_while_it_waits_costs_nothing",
        "proxy.test_admission:test_a_router_that_is_behind_sheds_and_still_says_how_it_is",
        "test_health_under_load:test_health_is_answered_within_a_second_at_any_load",
    ),
    "#759, #937: no keys of clients; anybody may use control endpoints": (
        "proxy.test_client_keys:test_only_known_keys_are_let_in",
        "proxy.test_client_keys:test_who_may_use_what",
    ),
    "#1040: request ids and model names write lines into the log": (
        "test_secrets:test_what_is_no_request_id_is_replaced",
        "test_secrets:test_what_is_no_name_of_a_model_is_refused_and_not_repeated",
        "proxy.test_route_log:test_session_is_shown_in_one_word",
    ),
    # discovery
    "#1091: a deletion missed while the watch reconnects leaves a ghost": (
        "discovery.test_kubernetes_pods:test_deletion_while_the_watch_is_down_leaves_no_ghost",
        "discovery.test_kubernetes_pods:test_watch_that_hangs_is_given_up_and_everything_listed_anew",
    ),
    "#1008, #1012: an evicted pod whose address is cleared stays": (
        "discovery.test_kubernetes_pods:test_evicted_pod_whose_address_is_cleared_is_no_ghost",
    ),
    "connections of an engine that left are closed under running streams": (
        "test_dynamic_config:test_stream_on_an_engine_that_leaves_comes_to_its_end",
    ),
    "a pod whose labels are missing or of the wrong type disturbs all": (
        "discovery.test_kubernetes_pods:test_pod_that_cannot_be_read_disturbs_no_other",
        "discovery.test_pods:test_parts_of_the_wrong_type_count_as_missing",
    ),
    "a backend URL with a single label or an IPv6 address is skipped": (
        "config.test_addresses:test_a_url_is_brought_to_its_one_form",
    ),
    # routing
    "#1045, #1050: prompts of chats are not matched": (
        "tokens.test_service:test_the_next_turn_of_a_long_chat_is_encoded_at_once",
        "tokens.test_tokenizer:test_renders_every_payload_as_vllm_does",
    ),
    "#1052: one tokenizer for all models": (
        "tokens.test_service:test_tokenizers_may_be_looked_up_at_each_request",
    ),
    "#1060, #1062: hashes that differ between engine and router miss silently": (
        "core.test_blocks:test_keys_from_events_equal_keys_of_the_whole_prompt",
        "engines.test_kv_wire:test_hashes_may_be_bytes",
    ),
    "#1037: prompts given as token ids break prefix routing": (
        "test_assembly:test_prefix_affinity_without_events_follows_what_was_sent",
        "tokens.test_service:test_token_ids_are_used_as_they_are",
    ),
    "#884, #1035, #59: KV locality without regard to load": (
        "policy.test_lodestar:test_absurd_load_is_never_attractive",
        "policy.test_congestion:test_the_price_is_the_formula",
    ),
    "the session ring is built anew whenever two models take turns": (
        "policy.test_session:test_sets_that_take_turns_are_built_once",
    ),
    "kvaware follows the first match, not the longest": (
        "policy.test_kvaware:test_longest_match_wins",
    ),
    "a policy may name an engine that is no candidate": (
        "policy.test_contract:test_exactly_one_candidate_is_chosen",
    ),
    "#1016, #1069: tokenizing and network calls block the event loop": (
        "tokens.test_service:test_long_prompts_wait_for_the_thread_the_first_time",
        "tokens.test_service:test_prompts_too_long_to_render_at_once_are_left_to_the_thread",
    ),
    # HTTP
    "malformed bodies, models of the wrong type: 500, or errors as plain strings": (
        "proxy.test_edge:test_bad_request_is_an_openai_error_object",
        "proxy.test_request_body:test_bodies_that_cannot_be_routed_are_refused_alike",
    ),
    "streams are labelled application/json, statuses turn into 200": (
        "proxy.test_relay:test_stream_arrives_chunk_by_chunk_and_labels_its_first_token",
        "proxy.test_failures:test_engine_error_status_passes_and_gives_no_label",
    ),
    "bodies are changed on their way (language=en, rewriter)": (
        "proxy.test_relay:test_body_query_and_status_pass_unchanged",
    ),
    "#201, #998: Proxy-Authorization and headers that Connection names cross; Date twice": (
        "proxy.test_relay:test_hop_by_hop_headers_stay_behind_and_others_cross",
    ),
    "error messages name addresses inside the cluster": (
        "proxy.test_broken_answers:test_error_names_no_address_of_an_engine",
    ),
    "dynamic configuration swaps router and discovery under running requests": (
        "test_dynamic_config:test_engines_that_stay_keep_what_is_known_of_them",
        "test_dynamic_config:test_policy_is_switched_and_the_learned_one_stays_as_it_is",
    ),
    "an unknown key in the dynamic file makes all of it ignored; reloads lose flags": (
        "config.test_dynamic:test_unknown_keys_are_reported_and_the_rest_applied",
        "config.test_dynamic:test_live_settings_are_taken_over_and_others_wait",
    ),
    "flags that stop the start: batch API, semantic cache": (
        "config.test_stack_settings:test_what_has_no_effect_is_said_in_one_line",
        "production_stack.test_table:test_flag_is_what_its_row_says",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_tests_that_show_it_is_not_here_exist(fault: str) -> None:
    assert FAULTS[fault]
    for shown_by in FAULTS[fault]:
        module, _, name = shown_by.partition(":")
        assert callable(getattr(importlib.import_module(f"tests.{module}"), name))
