"""Studies of what the models, the rules and the packaging are worth.

ablation  one change at a time to a recipe
calibrators, scrutiny, sizes, ensemble  alternatives to what the bundled model does, on validation
knee_finding  the localiser on composed films
robustness  grades of disturbed validation knees against clean ones
disturbances  JPEG, noise, blur, few pixels, windows, strips and more
negatives  photographic negatives in the release
hub_faults  pushes and downloads while the Hub fails
cohort_faults  a cohort graded while processes are killed, films hang and disks fill up
versions  the suite with the oldest and the newest libraries
"""
