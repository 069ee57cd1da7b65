// Checks JSON against a message type, as protobuf's mapping of JSON has it
// (protobuf.dev/programming-guides/json): protobuf's own parser says neither
// where a mistake is nor what would be right.

#ifndef TRIREME_TRAINER_CONFIG_JSON_CHECK_H_
#define TRIREME_TRAINER_CONFIG_JSON_CHECK_H_

#include <string_view>

#include "google/protobuf/descriptor.h"
#include "trainer/config/text_check.h"

namespace trireme {

// Problems and lines as CheckText gives them. A mistake in the syntax ends the
// check. Paths have the names of the message type, in whichever of the two
// spellings the text has them ("global_batch", "globalBatch"). Lines are those
// of the fields' names, columns 1.
CheckedText CheckJson(std::string_view text,
                      const google::protobuf::Descriptor& root);

}  // namespace trireme

#endif  // TRIREME_TRAINER_CONFIG_JSON_CHECK_H_
