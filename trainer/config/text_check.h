// Checks protobuf text against a message type, and finds every problem where
// protobuf's own parser stops at the first and points behind it. The value is
// still set by that parser, once nothing is wrong here.

#ifndef TRIREME_TRAINER_CONFIG_TEXT_CHECK_H_
#define TRIREME_TRAINER_CONFIG_TEXT_CHECK_H_

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "google/protobuf/descriptor.h"

namespace trireme {

struct TextProblem {
  int line = 0;  // From 1, as is column.
  int column = 0;
  std::string message;
};

struct CheckedText {
  // In the text's order; the check gives up after some twenty.
  std::vector<TextProblem> problems;
  // Line of each field that is set, by path: "grid.tp", "stages[0].blocks"
  // (and "stages", where its first element is).
  std::map<std::string, int> lines;
};

// `prefix` names the field that holds the text, for messages; empty at the
// root.
CheckedText CheckText(std::string_view text,
                      const google::protobuf::Descriptor& root,
                      const std::string& prefix);

// "unknown field 'hiden' in trireme.Dit; did you mean 'hidden'?"
std::string UnknownField(std::string_view name,
                         const google::protobuf::Descriptor& type);

// "an integer from 0 to 4294967295", "one of BF16, FP32": of one element where
// the field is repeated.
std::string ExpectedValue(const google::protobuf::FieldDescriptor& field);

}  // namespace trireme

#endif  // TRIREME_TRAINER_CONFIG_TEXT_CHECK_H_
