"""Each claim of the README, two guides and public docstrings has a test that holds it.

For a claim that is new, find or write the test and name it in the table, or claim less.
"""

import ast
from itertools import chain

from tests.helpers.claims import all_claims, claims_in
from tests.helpers.repository import ROOT

CLAIMS: dict[str, dict[str, list[str]]] = {
    "README, Where to go on": {
        "a page for each method and the reference of all": [
            "tests/test_site.py::test_each_method_has_a_page_with_its_settings_and_results",
            "tests/test_site.py::test_each_public_name_is_in_the_reference_once",
        ],
    },
    "methods, Methods": {
        "prints the same list with a sentence each": [
            "tests/runs/test_screens.py::test_each_choice_is_listed_once_with_a_sentence",
        ],
    },
    "methods, Methods of the diffusion model": {
        "| `joint` | all data up to the experience": [
            "tests/runs/test_methods.py::test_all_data_up_to_the_experience_are_trained_on",
            "tests/runs/test_methods.py::test_every_method_trains_has_its_effect_and_survives_a_checkpoint",
        ],
        "in the steps of all experiences": [
            "tests/runs/test_iid.py::test_a_model_is_trained_on_all_data_in_the_steps_of_all_experiences",
        ],
        "| `gem` | the data; the gradient is constrained by a memory of each": [
            "tests/runs/test_methods.py::test_every_method_trains_has_its_effect_and_survives_a_checkpoint",
        ],
        "(GEM and A-GEM: 40 of each experience)": [
            "tests/runs/test_methods.py::test_every_method_trains_has_its_effect_and_survives_a_checkpoint",
        ],
        "All methods get the same data, steps and batch sizes": [
            "tests/runs/test_methods.py::test_all_methods_get_the_same_data_steps_and_batch_sizes",
            "tests/runs/test_methods.py::test_every_method_trains_has_its_effect_and_survives_a_checkpoint",
        ],
    },
    "methods, Methods of the solver alone": {
        "| `solver_cumulative` | all data up to the experience": [
            "tests/runs/test_methods.py::test_all_data_up_to_the_experience_are_trained_on",
            "tests/runs/test_methods.py::test_every_method_trains_has_its_effect_and_survives_a_checkpoint",
        ],
    },
    "methods, A model conditioned on the class": {
        "with each method of the first": [
            "tests/runs/test_methods.py::test_every_method_trains_has_its_effect_and_survives_a_checkpoint",
        ],
    },
    "experiments, Run experiments": {
        "| `avalanche-gd --help`, `--help-all` |": [
            "tests/runs/test_screens.py::test_help_fits_a_screen_and_says_where_to_go_on",
            "tests/runs/test_screens.py::test_all_help_is_hydras_with_the_comments",
        ],
    },
    "experiments, What a run writes": {
        "| `metrics.csv` | the metrics after each experience": [
            "tests/runs/test_run.py::test_a_run_leaves_what_the_design_says",
        ],
        "machine and commit of each time that it went on": [
            "tests/runs/test_run.py::test_each_time_that_a_run_goes_on_is_told",
        ],
    },
    "experiments, The paper's protocol": {
        "Use one command for each": [
            "tests/runs/test_sweep.py::test_sweeps_of_several_experiments_end_with_one_line_instead_of_being_lost",
        ],
        "With values for all that they sweep": [
            "tests/runs/test_sweep.py::test_several_experiments_can_be_swept_beside_values_for_all_that_they_sweep",
        ],
    },
    "experiments, Faster": {
        "how long a step of each method takes": [
            "tests/profiling/test_speed.py::test_a_step_of_each_method_of_a_diffusion_model_is_measured",
        ],
    },
    "DiffusionModel": {
        "noises them, each at a random timestep": [
            "tests/models/test_diffusion.py::test_forward_noises_by_the_formula_and_the_loss_is_the_squared_error",
        ],
        "samples are of the classes trained on so far, as many of each": [
            "tests/models/test_conditioning.py::test_without_a_condition_classes_are_drawn_evenly_over_those_seen",
            "tests/models/test_conditioning.py::test_training_learns_which_classes_there_are",
        ],
        ":param guidance: w of classifier-free guidance": [
            "tests/models/test_conditioning.py::test_all_sampling_is_guided",
            "tests/models/test_conditioning.py::test_guidance_is_the_formula",
        ],
    },
    "DiffusionModel.forward": {
        "Noise each image at a timestep of its own": [
            "tests/models/test_diffusion.py::test_forward_noises_by_the_formula_and_the_loss_is_the_squared_error",
        ],
        "on an accelerator only each 50th batch": [
            "tests/models/test_image_check.py::test_an_accelerator_waits_for_the_first_batches_and_each_50th",
        ],
    },
    "DiffusionModel.generate": {
        "Leaves the module's mode, its gradients and all random state": [
            "tests/models/test_diffusion.py::test_generate_leaves_modes_gradients_and_random_state_alone",
            "tests/models/test_schedulers.py::test_all_that_is_drawn_comes_from_the_generator",
            "tests/metrics/test_plugins.py::test_generating_reseeds_no_device_and_leaves_the_random_state",
        ],
        ":param generator: the source of all randomness.": [
            "tests/models/test_schedulers.py::test_all_that_is_drawn_comes_from_the_generator",
        ],
        "each call draws from the next seed": [
            "tests/models/test_diffusion.py::test_generate_without_a_generator_never_repeats_and_follows_the_seed",
        ],
    },
    "DiffusionModel.save_pretrained": {
        "whole or not at all": [
            "tests/test_storage.py::test_a_folder_is_replaced_whole_or_not_at_all",
        ],
    },
    "DiffusionModel.from_pretrained": {
        "each stands for a class, and all of them can be sampled": [
            "tests/models/test_pretrained.py::test_each_embedding_of_a_pipeline_is_a_class_unless_one_is_left_for_none",
        ],
    },
    "ConditionedDenoiser.draw_condition": {
        "as many of each": [
            "tests/models/test_conditioning.py::test_without_a_condition_classes_are_drawn_evenly_over_those_seen",
        ],
    },
    "ConditionedDenoiser.drop_condition": {
        "Drop each class with the probability": [
            "tests/models/test_conditioning.py::test_classes_are_left_out_as_often_as_asked_and_only_in_training",
        ],
    },
    "NoisyImages": {
        "is conditioned in all of them": [
            "tests/training/test_compatibility.py::test_each_plugin_has_its_effect_or_is_refused",
            "tests/training/test_compatibility.py::test_other_strategies_of_avalanches_train_a_diffusion_model",
        ],
    },
    "NoisyImages.given": {
        "each is dropped with the probability": [
            "tests/models/test_conditioning.py::test_classes_are_left_out_as_often_as_asked_and_only_in_training",
        ],
    },
    "unet": {
        "adds an embedding of each, and one, the last, of no class": [
            "tests/models/test_diffusion.py::test_a_preset_has_an_embedding_of_each_class_and_the_last_of_none",
        ],
    },
    "Source": {
        "depend neither on the current batch nor on each other": [
            "tests/plugins/test_pool.py::test_what_is_taught_ahead_is_taught_as_step_by_step",
            "tests/plugins/test_cheaper.py::test_a_pool_of_pairs_that_depend_on_the_current_batch_is_refused",
        ],
    },
    "GenerativeDistillationPlugin": {
        "is not frozen but follows the student": [
            "tests/plugins/test_ema.py::test_a_teacher_follows_the_student_by_a_moving_average",
        ],
        'all but ``"current"``': [
            "tests/plugins/test_replay_options.py::test_replay_starts_at_its_lowest_timestep",
            "tests/plugins/test_replay_options.py::test_a_start_is_refused_where_timesteps_are_not_drawn",
        ],
        "A conditioned model is taught the classes": [
            "tests/models/test_conditioning.py::test_every_source_distils_under_the_same_condition",
            "tests/plugins/test_cheaper.py::test_a_trajectory_keeps_its_class",
        ],
        "samples of the source for each current one": [
            "tests/plugins/test_cheaper.py::test_a_distillation_step_costs_what_it_says",
            "tests/plugins/test_cheaper.py::test_a_ratio_goes_with_every_source_and_leaves_the_weights_of_the_losses",
        ],
        "the source of all that the plugin draws": [
            "tests/plugins/test_behaviour.py::test_all_that_a_plugin_draws_comes_from_its_generator",
        ],
        "samples of each class that the teacher knows": [
            "tests/plugins/test_pool.py::test_a_plugin_fills_its_pool_with_so_many_of_each_class_that_it_knows",
        ],
        "that is of each class where the model is not": [
            "tests/plugins/test_pool.py::test_a_pool_of_each_class_is_refused_before_training_where_it_cannot_be",
        ],
    },
    "GenerativeReplayPlugin": {
        "the generator is trained on each experience right after": [
            "tests/plugins/test_behaviour.py::test_replay_of_a_solver_trains_its_generator_in_a_plain_template",
            "tests/plugins/test_behaviour.py::test_the_solver_replays_from_the_generator_of_the_experience_before",
        ],
        "replays the classes it was trained on, as many of each": [
            "tests/models/test_conditioning.py::test_a_generator_replays_its_samples_under_the_classes_they_were_made_for",
        ],
        ":param replay_ratio: samples for each of the current batch": [
            "tests/plugins/test_cheaper.py::test_a_replay_step_costs_what_it_says",
        ],
        "the source of all that the plugin draws": [
            "tests/plugins/test_behaviour.py::test_all_that_a_plugin_draws_comes_from_its_generator",
        ],
        "samples of each class that it knows": [
            "tests/plugins/test_pool.py::test_a_plugin_fills_its_pool_with_so_many_of_each_class_that_it_knows",
        ],
        "of each class where the generator is not": [
            "tests/plugins/test_pool.py::test_a_pool_of_each_class_is_refused_before_training_where_it_cannot_be",
        ],
    },
    "GenerativeReplayPlugin.generate": {
        "the class on which each was conditioned": [
            "tests/models/test_conditioning.py::test_a_generator_replays_its_samples_under_the_classes_they_were_made_for",
        ],
    },
    "Teacher": {
        "Every plugin that teaches asks for it": [
            "tests/plugins/test_behaviour.py::test_plugins_of_a_strategy_share_one_teacher",
        ],
    },
    "TeachingRequest.noised": {
        "each noised to a random timestep": [
            "tests/plugins/test_sources.py::test_generation",
        ],
    },
    "TeachingRequest.retrained": {
        "each noised to a random timestep": [
            "tests/plugins/test_losses.py::test_generative_replay",
        ],
    },
    "PartialGeneration": {
        "stopped at each sample's own timestep": [
            "tests/plugins/test_sources.py::test_partial_generation",
        ],
    },
    "Trajectory": {
        "each pass of which is also a target": [
            "tests/plugins/test_cheaper.py::test_trajectories_are_ddim_from_noise_and_their_passes_are_the_targets",
        ],
        "over the batch all t are covered": [
            "tests/plugins/test_cheaper.py::test_trajectories_are_ddim_from_noise_and_their_passes_are_the_targets",
            "tests/plugins/test_cheaper.py::test_trajectories_cover_all_timesteps_evenly",
        ],
        "is the target at each ``x_t``": [
            "tests/models/test_schedulers.py::test_a_trajectory_is_guided_and_its_targets_are_not",
        ],
    },
    "LookAhead.draw": {
        ":param generator: the source of all randomness.": [
            "tests/plugins/test_pool.py::test_all_that_is_drawn_comes_from_the_generator",
        ],
    },
    "ReplayPool": {
        "is of each class that a conditioned teacher": [
            "tests/plugins/test_pool.py::test_a_pool_of_each_class_holds_every_class_as_often",
        ],
    },
    "ReplayPool.draw": {
        ":param generator: the source of all randomness.": [
            "tests/plugins/test_pool.py::test_all_that_is_drawn_comes_from_the_generator",
        ],
    },
    "ReplayPool.check_model": {
        "It must hold a sample of each class": [
            "tests/plugins/test_pool.py::test_a_pool_smaller_than_the_number_of_classes_is_refused_before_training",
            "tests/plugins/test_pool.py::test_a_pool_that_the_memory_cannot_hold_is_refused_with_its_size",
        ],
    },
    "EMAPlugin": {
        "Ends each experience with the moving average": [
            "tests/plugins/test_ema.py::test_an_experience_ends_with_the_average_of_its_weights",
        ],
        "before any plugin behind this one in the strategy sees them": [
            "tests/plugins/test_ema.py::test_an_experience_ends_with_the_average_of_its_weights",
            "tests/plugins/test_ema.py::test_the_average_is_the_next_teacher",
        ],
        "of the average too, in every metric": [
            "tests/plugins/test_ema.py::test_all_metrics_of_an_evaluation_in_between_see_the_average",
        ],
        "after each of them the strategy has the average": [
            "tests/plugins/test_ema.py::test_an_average_ends_with_the_origin_experience",
        ],
    },
    "EMAPlugin.before_training": {
        "only when all metrics have seen the average": [
            "tests/plugins/test_ema.py::test_all_metrics_of_an_evaluation_in_between_see_the_average",
        ],
    },
    "DenoisingLoss": {
        "each sample is weighted by its timestep": [
            "tests/training/test_losses.py::test_min_snr_weights",
        ],
    },
    "DiffusionTraining": {
        "ends each experience with the moving average": [
            "tests/plugins/test_ema.py::test_an_experience_ends_with_the_average_of_its_weights",
        ],
    },
    "SoftGenerativeReplay": {
        "In each experience the solver is trained first": [
            "tests/plugins/test_behaviour.py::test_the_solver_replays_from_the_generator_of_the_experience_before",
        ],
    },
    "BudgetedTemplate": {
        "a random state of its own, the same each time": [
            "tests/training/test_templates.py::test_an_evaluation_seeds_no_device_but_its_own",
            "tests/training/test_templates.py::test_evaluation_leaves_the_training_to_the_same_bits",
        ],
        "An empty experience is refused before any is trained": [
            "tests/training/test_templates.py::test_an_empty_experience_is_refused_before_any_is_trained",
        ],
    },
    "BudgetedTemplate.train": {
        "before any is trained": [
            "tests/training/test_templates.py::test_an_empty_experience_is_refused_before_any_is_trained",
            "tests/training/test_templates.py::test_what_needs_labels_says_so_before_training",
            "tests/models/test_conditioning.py::test_a_class_that_the_model_has_not_is_refused_before_any_training",
            "tests/distributed/test_gradients.py::test_what_cannot_be_shared_is_refused_in_both_processes",
        ],
    },
    "BudgetedTemplate.training_epoch": {
        "this process's share of each batch": [
            "tests/distributed/test_gradients.py::test_two_processes_have_the_losses_and_metrics_of_one",
        ],
    },
    "BudgetedTemplate.backward": {
        "the mean loss and the mean gradients of all": [
            "tests/distributed/test_gradients.py::test_two_processes_have_the_losses_and_metrics_of_one",
            "tests/distributed/test_gradients.py::test_two_processes_end_with_the_same_weights",
        ],
    },
    "Sampling": {
        "the same in every evaluation": [
            "tests/metrics/test_plugins.py::test_generating_reseeds_no_device_and_leaves_the_random_state",
        ],
    },
    "class_balance_metrics": {
        "the ratio of each class among the generated images": [
            "tests/metrics/test_plugins.py::test_they_judge_the_model_on_the_classes_trained_on",
        ],
    },
    "denoising_loss_metrics": {
        "on each evaluated experience": [
            "tests/metrics/test_denoising_loss.py::test_each_band_has_the_mean_of_its_timesteps",
        ],
        "are the same in each evaluation": [
            "tests/metrics/test_denoising_loss.py::test_the_timesteps_and_the_noise_are_the_same_in_each_evaluation",
        ],
    },
    "oracle_classifier": {
        ":raises ValueError: for steps that are not an integer": [
            "tests/models/test_oracle.py::test_labels_that_are_not_one_class_an_image_are_refused",
            "tests/models/test_oracle.py::test_images_that_are_not_in_model_space_are_refused",
        ],
    },
    "fid_metrics": {
        "There is no value, and a warning, before all experiences of the stream": [
            "tests/metrics/test_what_users_give.py::test_a_summary_is_of_all_experiences_or_not_there",
            "tests/metrics/test_what_users_give.py::test_fid_of_a_model_before_further_training_is_in_no_summary",
        ],
        "of a function that is no module or method of one": [
            "tests/metrics/test_unusual_trainings.py::test_features_of_real_images_are_not_of_older_weights",
        ],
        ":param experience: also log FID for each experience": [
            "tests/metrics/test_plugins.py::test_fid_by_experience_takes_the_images_of_its_classes",
            "tests/metrics/test_plugins.py::test_fid_by_experience_of_a_conditioned_model_takes_the_classes_asked_for",
            "tests/metrics/test_values.py::test_fid_of_fewer_than_two_images_is_not_a_number",
        ],
        "The first of them are taken, as many of all": [
            "tests/metrics/test_plugins.py::test_fid_by_experience_is_of_as_many_images_after_each_experience",
        ],
        ":param stream: log FID over all of them": [
            "tests/metrics/test_plugins.py::test_they_judge_the_model_on_the_classes_trained_on",
        ],
    },
    "generation_summary": {
        ":param qualities: what was measured, after each experience": [
            "tests/metrics/test_summary.py::test_the_summary_is_that_of_the_matrix",
            "tests/metrics/test_summary.py::test_forgetting_counts_only_experiences_measured_after_their_training",
        ],
        "after how many experiences each was measured first": [
            "tests/metrics/test_summary.py::test_forgetting_goes_by_when_an_experience_came_to_count",
        ],
    },
    "SplitDigits": {
        "The test images are the same for every seed": [
            "tests/data/test_data.py::test_the_seed_decides_the_class_order_and_nothing_else",
            "tests/data/test_data.py::test_the_test_digits_have_the_classes_in_proportion",
        ],
        "1, 2, 5 or 10; each gets the same number of classes": [
            "tests/data/test_data.py::test_each_experience_has_as_many_classes",
            "tests/data/test_data.py::test_experiences_that_do_not_divide_the_classes_are_refused",
        ],
    },
    "SplitFMNIST": {
        "1, 2, 5 or 10; each gets the same number of classes": [
            "tests/data/test_data.py::test_each_experience_has_as_many_classes",
            "tests/data/test_data.py::test_experiences_that_do_not_divide_the_classes_are_refused",
        ],
    },
    "SplitMNIST": {
        "1, 2, 5 or 10; each gets the same number of classes": [
            "tests/data/test_data.py::test_each_experience_has_as_many_classes",
            "tests/data/test_data.py::test_experiences_that_do_not_divide_the_classes_are_refused",
        ],
    },
    "SplitCIFAR10": {
        "1, 2, 5 or 10; each gets the same number of classes": [
            "tests/data/test_cifar.py::test_each_experience_has_as_many_classes",
            "tests/data/test_data.py::test_experiences_that_do_not_divide_the_classes_are_refused",
        ],
    },
    "SplitCIFAR100": {
        "a divisor of 100; each gets the same number of classes": [
            "tests/data/test_cifar.py::test_each_experience_has_as_many_classes",
            "tests/data/test_cifar.py::test_experiences_that_do_not_divide_a_hundred_classes_are_refused",
        ],
    },
    "SplitImageFolder": {
        "a divisor of the number of classes; each gets the same": [
            "tests/data/test_data.py::test_each_experience_has_as_many_classes",
            "tests/data/test_image_folder.py::test_classes_that_cannot_be_dealt_evenly_are_refused",
        ],
        "of which a fifth of each class becomes the test stream": [
            "tests/data/test_image_folder.py::test_a_fifth_of_each_class_is_held_out_the_same_for_every_seed",
        ],
    },
    "to_model_space": {
        "every image resized once": [
            "tests/data/test_images_as_bytes.py::test_pil_images_are_resized_as_pil_does_to_the_bit",
            "tests/data/test_data.py::test_images_are_resized_once_and_labels_follow",
            "tests/data/test_data.py::test_any_benchmark_of_pil_images_is_brought_to_model_space",
            "tests/data/test_data.py::test_images_keep_their_order_however_many_there_are",
        ],
        "every experience has task label 0": [
            "tests/data/test_data.py::test_any_benchmark_of_pil_images_is_brought_to_model_space",
            "tests/data/test_model_space.py::test_a_benchmark_knows_of_itself_what_avalanches_does",
        ],
    },
    "stream_tensors": {
        "All images and labels of a stream": [
            "tests/data/test_data.py::test_digits_are_those_of_scikit_learn_in_model_space",
        ],
    },
    "afid_summary": {
        "what was measured after each experience": [
            "tests/metrics/test_transfer.py::test_afid_and_f_by_hand",
            "tests/metrics/test_transfer.py::test_afid_over_a_stream_is_that_of_the_distances",
        ],
    },
    "classification_accuracy_metrics": {
        "may spend in each evaluation": [
            "tests/metrics/test_classification_accuracy.py::test_the_score_is_that_of_a_classifier_of_the_samples",
        ],
    },
    "fid_transfer_metrics": {
        "it is with all of them": [
            "tests/metrics/test_transfer.py::test_transfer_over_a_stream_is_that_of_what_was_generated",
        ],
        "is asked before any training for all of its classes": [
            "tests/metrics/test_transfer.py::test_a_conditioned_model_is_asked_for_all_classes_before_training",
        ],
        "Evaluate after each experience": [
            "tests/metrics/test_transfer.py::test_transfer_over_a_stream_is_that_of_what_was_generated",
        ],
        "costs as many images again in each experience": [
            "tests/metrics/test_transfer.py::test_what_comes_is_measured_once_before_its_first_piece",
        ],
    },
    "kid_metrics": {
        "images of each; papers take 1,000": [
            "tests/metrics/test_measures.py::test_kid_is_that_of_torchmetrics",
        ],
        "decides the subsets, the same in every evaluation": [
            "tests/metrics/test_measures.py::test_kid_is_that_of_torchmetrics",
        ],
    },
    "precision_recall_metrics": {
        "A class that is never generated": [
            "tests/metrics/test_measures.py::test_dropped_classes_lower_recall_and_coverage_and_not_precision",
        ],
    },
    "recovery_steps": {
        "after every ``every`` steps": [
            "tests/metrics/test_recovery.py::test_goals_are_reached_in_order_and_on_measured_steps",
            "tests/metrics/test_recovery.py::test_a_model_that_has_not_forgotten_takes_no_step",
        ],
        ":param every:": [
            "tests/metrics/test_recovery.py::test_goals_are_reached_in_order_and_on_measured_steps",
        ],
        "by each of ``within``": [
            "tests/metrics/test_recovery.py::test_goals_are_reached_in_order_and_on_measured_steps",
            "tests/metrics/test_recovery.py::test_what_is_not_reached_is_none",
        ],
    },
    "transfer_summary": {
        "the model before all training": [
            "tests/metrics/test_transfer.py::test_transfer_by_hand",
        ],
        "each if there is a term": [
            "tests/metrics/test_transfer.py::test_transfer_by_hand",
            "tests/metrics/test_transfer.py::test_no_transfer_where_nothing_can_be_compared",
        ],
    },
    "Ahead": {
        "what each of them takes": [
            "tests/plugins/test_pool.py::test_what_is_taught_ahead_is_taught_as_step_by_step",
        ],
    },
    "NoiseProcess.coefficients": {
        "each ``(N, 1, 1, 1)``": [
            "tests/models/test_flow.py::test_noise_is_added_as_diffusers_adds_it",
        ],
    },
    "NoiseProcess.ddim_step": {
        "a timestep of each sample's own": [
            "tests/models/test_flow.py::test_a_ddim_step_is_diffusers_step_of_euler",
        ],
    },
    "NoiseProcess.min_snr_weights": {
        "at each timestep": ["tests/training/test_losses.py::test_min_snr_weights"],
    },
    "draw": {
        "the source of all randomness": [
            "tests/test_functional.py::test_every_source_draws_what_the_teacher_predicts",
        ],
    },
    "prediction_losses": {
        "of each batch, in one pass over all": [
            "tests/test_functional.py::test_several_batches_take_one_pass",
        ],
    },
}
"""By place, a part of each sentence that claims something, and what holds it."""


def _tests_of(file: str) -> set[str]:
    """The tests of a file, as pytest names them, without importing it."""
    path = ROOT / file
    nodes = ast.parse(path.read_text()).body if path.is_file() else []
    return {f"{file}::{node.name}" for node in nodes if isinstance(node, ast.FunctionDef)}


def test_the_claims_are_found():
    text = "It never\nfails. Nor this. Each is\n\n- any one.\n:param x: of all."
    assert claims_in(text) == [
        "It never fails.",
        "Each is",
        "- any one.",
        ":param x: of all.",
    ]
    found = all_claims()
    assert len(found) > 30 and sum(map(len, found.values())) > 60
    assert not any("split_digits, after 5 exp" in s for s in chain(*found.values()))


def test_each_claim_is_in_the_table():
    lacking = [
        f"{place}: {sentence}"
        for place, sentences in all_claims().items()
        for sentence in sentences
        if sum(part in sentence for part in CLAIMS.get(place, ())) != 1
    ]
    assert not lacking, "\n".join(["name the tests that hold these:", *lacking])


def test_each_entry_of_the_table_is_a_claim():
    found = all_claims()
    stale = [
        f"{place}: {part}"
        for place, parts in CLAIMS.items()
        for part in parts
        if sum(part in sentence for sentence in found.get(place, ())) != 1
    ]
    assert not stale, "\n".join(["no sentence, or several, has:", *stale])


def test_the_tests_that_hold_the_claims_exist():
    assert all(tests for parts in CLAIMS.values() for tests in parts.values())
    named = {test for parts in CLAIMS.values() for test in chain(*parts.values())}
    files = {test.partition("::")[0] for test in named}
    lacking = sorted(named - {test for file in files for test in _tests_of(file)})
    assert not lacking, "\n".join(["there is no", *lacking])
