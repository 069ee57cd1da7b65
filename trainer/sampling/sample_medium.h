// What drawn samples are to people: how they are shown, which files are made of
// them, and how far they are from real ones. One medium for pictures, one for
// shapes.

#ifndef TRIREME_TRAINER_SAMPLING_SAMPLE_MEDIUM_H_
#define TRIREME_TRAINER_SAMPLING_SAMPLE_MEDIUM_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/data/dataset.h"
#include "models/family.h"
#include "models/shape/mesh_parts.h"
#include "runtime/device/device.h"
#include "trainer/job/job.pb.h"

namespace trireme {

// Samples in rows, each of which has a name.
struct DrawnRows {
  std::vector<std::string> names;
  int64_t per_row = 0;
  // [rows · per_row, ..], of the shape that the family learns.
  std::span<const float> samples;
  // What each was drawn for; empty where that does not matter.
  std::span<const Sample> prompts = {};
  // Asked before each sample is shown: Write ends with Cancelled where it says
  // so. Absent: never.
  std::function<bool()> stop;

  bool Stops() const { return stop != nullptr && stop(); }
};

// Of shapes, and of no other samples.
struct ShapeFiles {
  // Of their meshes: "glb", "obj" or "ply" (models/shape/mesh_writer.h).
  std::string format = "glb";
  // Pictures of each, from all around. With several a shape has a row of its
  // own.
  int views = 1;
};

// What samples are compared with.
struct RealSets {
  const Dataset& training;
  // Null: nothing was held out.
  const Dataset* held_out = nullptr;
  // The picture of drawn samples, beside which another may show some of those
  // that are compared with the nearest real ones; empty: none does.
  std::string picture;
};

class SampleMedium {
 public:
  virtual ~SampleMedium() = default;

  // "pictures", "shapes".
  virtual std::string things() const = 0;

  // Whether Write with this name would replace what is not this program's.
  virtual absl::Status CheckFiles(const std::string& path,
                                  bool overwrite) const = 0;
  // What Write makes, for people.
  virtual std::string FilesOf(const std::string& path) const { return path; }
  // Writes a labelled grid of pictures, a PNG, and other files beside it.
  virtual absl::Status Write(const std::string& path,
                             const DrawnRows& rows) const = 0;
  // How far `samples`, one for each of the prompts, are from as many real ones,
  // and these from others of their kind: lines for people.
  virtual absl::StatusOr<std::string> Compare(
      const std::vector<Sample>& prompts, std::span<const float> samples,
      const RealSets& real) const = 0;
};

// Whether drawn samples are fields, or latents of fields, whose surfaces are
// shown.
bool DrawsFields(const Data& data);
// Whether they are shapes.
bool DrawsShapes(const Data& data);

// Of a job's samples, as the family learns them. Latents are decoded on
// `device`, which outlives the medium, by the autoencoder of the data. Errors:
// those of Autoencoder::Open, and one whose latents are of another shape.
// `kept`: of shapes that are made of a field.
absl::StatusOr<std::unique_ptr<SampleMedium>> MediumOf(
    const ModelFamily& family, const Data& data, Device& device,
    KeptParts kept = KeptParts::kTouching, const ShapeFiles& files = {});

// Decodes a sample on a dry device, where samples are latents. Errors: those of
// ReadAutoencoderConfig.
absl::Status RehearseDecoding(const ModelFamily& family, const Data& data,
                              Device& dry);
// The memory that it takes.
absl::StatusOr<int64_t> PredictMemoryOfDecoding(const ModelFamily& family,
                                                const Data& data);

// Gives up to `most` readable samples of a data set to `take`, in an order
// keyed by a seed, leaving out the first `skip` of that order. Errors: fewer
// than `least` (of `things`), those of `take`.
absl::Status TakeReal(const Dataset& dataset, const SampleParts& parts,
                      int64_t skip, int64_t least, int64_t most,
                      const std::string& things,
                      const std::function<absl::Status(const Sample&)>& take);

}  // namespace trireme

#endif  // TRIREME_TRAINER_SAMPLING_SAMPLE_MEDIUM_H_
