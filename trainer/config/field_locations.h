// Where a configuration's fields were set: validation speaks of fields
// ("plan.grid.tp: found 3, ..."), the user of lines ("plan.textproto:7: ...").
// Immutable use from any thread.

#ifndef TRIREME_TRAINER_CONFIG_FIELD_LOCATIONS_H_
#define TRIREME_TRAINER_CONFIG_FIELD_LOCATIONS_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "google/protobuf/descriptor.h"

namespace trireme {

class FieldLocations {
 public:
  FieldLocations() = default;
  // `lines` by field path ("stages[1].blocks"), from 1.
  FieldLocations(std::string file, const google::protobuf::Descriptor* root,
                 const std::map<std::string, int>& lines);

  const std::string& file() const { return file_; }

  // An assignment that ApplyOverride accepted: errors in what it set are from
  // now on the assignment's, not the file's.
  void NoteOverride(const std::string& assignment);

  // If the message begins with the path of a field of the root message (as
  // "grid.tp: found ...", or "plan.grid.tp: ..." for a Plan,
  // "cluster.nodes[0].count: ..." for a Cluster), the same status
  // with "file:line: " in front: the line of the field, or of its nearest
  // parent that was set. "file: " if none was; "--set ASSIGNMENT: " if it was
  // set so. Any other status is returned unchanged.
  absl::Status Locate(const absl::Status& status) const;

 private:
  std::string file_;
  const google::protobuf::Descriptor* root_ = nullptr;
  // What stands before the error, by field path.
  std::map<std::string, std::string> origins_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_CONFIG_FIELD_LOCATIONS_H_
