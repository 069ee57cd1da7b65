// Drawn pictures: a grid of them, and their sliced Wasserstein distance to real
// ones.

#ifndef TRIREME_TRAINER_SAMPLING_PICTURE_MEDIUM_H_
#define TRIREME_TRAINER_SAMPLING_PICTURE_MEDIUM_H_

#include <string>
#include <vector>

#include "models/batch.h"
#include "trainer/sampling/sample_medium.h"

namespace trireme {

class PictureMedium final : public SampleMedium {
 public:
  // `spec`: of a picture [c, h, w] in [−1, 1]. `has_classes`: pictures are
  // drawn for a class.
  PictureMedium(FieldSpec spec, bool has_classes)
      : spec_(std::move(spec)), has_classes_(has_classes) {}

  std::string things() const override { return "pictures"; }
  absl::Status CheckFiles(const std::string& path,
                          bool overwrite) const override;
  absl::Status Write(const std::string& path,
                     const DrawnRows& rows) const override;
  absl::StatusOr<std::string> Compare(const std::vector<Sample>& prompts,
                                      std::span<const float> samples,
                                      const RealSets& real) const override;

 private:
  FieldSpec spec_;
  bool has_classes_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_SAMPLING_PICTURE_MEDIUM_H_
