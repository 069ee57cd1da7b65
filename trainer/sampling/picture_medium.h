// Drawn pictures, or latents of some: a grid of them, those that nothing here
// decodes in a file as well, and the sliced Wasserstein distance of what the
// model learns to real ones.

#ifndef TRIREME_TRAINER_SAMPLING_PICTURE_MEDIUM_H_
#define TRIREME_TRAINER_SAMPLING_PICTURE_MEDIUM_H_

#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "models/batch.h"
#include "models/image/image.h"
#include "trainer/sampling/sample_medium.h"

namespace trireme {

class PictureMedium final : public SampleMedium {
 public:
  // A sample as people see it.
  using ToImage =
      std::function<absl::StatusOr<Image>(std::span<const float> sample)>;

  // A sample as others decode it.
  using ToStored =
      std::function<std::vector<float>(std::span<const float> sample)>;

  // `spec`: of a sample [c, h, w]. With `to_stored` samples are kept beside the
  // picture, in a file of its name that ends in .safetensors: "samples", fp32
  // [n, c, h, w], row by row of the picture.
  PictureMedium(FieldSpec spec, ToImage to_image, ToStored to_stored = nullptr)
      : spec_(std::move(spec)),
        to_image_(std::move(to_image)),
        to_stored_(std::move(to_stored)) {}

  std::string things() const override { return "pictures"; }
  absl::Status CheckFiles(const std::string& path,
                          bool overwrite) const override;
  std::string FilesOf(const std::string& path) const override;
  absl::Status Write(const std::string& path,
                     const DrawnRows& rows) const override;
  absl::StatusOr<std::string> Compare(const std::vector<Sample>& prompts,
                                      std::span<const float> samples,
                                      const RealSets& real) const override;

 private:
  absl::Status Store(const std::string& path, const DrawnRows& rows) const;

  FieldSpec spec_;
  ToImage to_image_;
  ToStored to_stored_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_SAMPLING_PICTURE_MEDIUM_H_
