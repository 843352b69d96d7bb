"""Studies of what the models, the rules and the packaging are worth.

ablation  one change at a time to a recipe
robust_keys  the same for the keys of robust-polish, on disturbed knees
runs  one row for each training run
knee_finding  the localiser on composed films
robustness  grades of disturbed validation knees against clean ones
disturbances  JPEG, noise, blur, few pixels, windows, strips and more
negatives  photographic negatives in the release
fuzz  hostile files by the thousand, through the reader and a running demo
hub_faults  pushes and downloads while the Hub fails
cohort_faults  a cohort graded while processes are killed, films hang and disks fill up
versions  the suite with the oldest and the newest libraries
"""
