// A picture of which experts the tokens of held-out samples went to, by the
// samples' times: whether experts have become those of much or of little noise.

#ifndef TRIREME_TRAINER_EVALUATION_ROUTING_PICTURE_H_
#define TRIREME_TRAINER_EVALUATION_ROUTING_PICTURE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/image/image.h"

namespace trireme {

// Of each layer's routes [kRouteKinds, experts] a map with a row for each
// expert and, from left to right, the parts of the time from 0 to 1 (all
// noise): the shares of the routes of the samples of that time, white where
// there were none. Of models without times, which have the first kind alone,
// one column. Of very many layers some, evenly chosen.
absl::StatusOr<Image> DrawRouting(
    const std::map<std::string, std::vector<double>>& routes, bool by_time,
    int64_t step);

}  // namespace trireme

#endif  // TRIREME_TRAINER_EVALUATION_ROUTING_PICTURE_H_
