// Which picture is trained at which size, for people: a line for every sample
// of a run, and for every one that is left out.

#ifndef TRIREME_TRAINER_RUN_BUCKET_LIST_H_
#define TRIREME_TRAINER_RUN_BUCKET_LIST_H_

#include "absl/status/status.h"
#include "models/data/dataset.h"
#include "trainer/run/run_folder.h"

namespace trireme {

// buckets.tsv in the folder: size and name, or "left out", name and why, with
// tabs between them. Of a data set without buckets nothing is written.
absl::Status WriteBucketList(const RunFolder& folder, const Dataset& dataset);

}  // namespace trireme

#endif  // TRIREME_TRAINER_RUN_BUCKET_LIST_H_
