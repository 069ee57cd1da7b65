// Configuration files: protobuf text in, with every problem named by file, line
// and column; changes from the command line; text out.
//
// Text is hostile input: at most 16 MiB and 64 messages in one another. Errors
// are InvalidArgument with one problem a line (some twenty at most):
//
//   job.textproto:12:3: unknown field 'hiden' in trireme.Dit; did you mean
//   'hidden'?
//
// Any thread.

#ifndef TRIREME_TRAINER_CONFIG_TEXTPROTO_H_
#define TRIREME_TRAINER_CONFIG_TEXTPROTO_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/message.h"
#include "trainer/config/field_locations.h"

namespace trireme {

// Replaces *message by what `text` says; on an error it is left as it was.
// `name` stands for the file in errors.
absl::StatusOr<FieldLocations> ParseTextProto(
    std::string_view text, const std::string& name,
    google::protobuf::Message* message);

// The same of a file; one that ends in .json holds JSON (protobuf's mapping),
// whose errors and locations have no line. NotFound if there is no such file.
absl::StatusOr<FieldLocations> ParseTextProtoFile(
    const std::string& path, google::protobuf::Message* message);

// Applies "FIELD=VALUE" as --set takes it; on an error *message is left as it
// was. FIELD is a path as "optimizer.learning_rate" or "stages[0].blocks";
// VALUE is as in a file, strings also without quotes, whole messages in braces
// and whole lists in brackets. What the field held is replaced. "FIELD+=VALUE"
// adds to a repeated field.
absl::Status ApplyOverride(const std::string& assignment,
                           google::protobuf::Message* message);

// Stable text, as a file would hold it.
std::string PrintTextProto(const google::protobuf::Message& message);

// That text, or JSON where `path` ends in .json, written beside it, synced and
// renamed.
absl::Status WriteTextProtoFile(const google::protobuf::Message& message,
                                const std::string& path);

}  // namespace trireme

#endif  // TRIREME_TRAINER_CONFIG_TEXTPROTO_H_
