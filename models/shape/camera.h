// Where a camera is that looks at a shape.

#ifndef TRIREME_MODELS_SHAPE_CAMERA_H_
#define TRIREME_MODELS_SHAPE_CAMERA_H_

namespace trireme {

// Degrees around the vertical axis from the front (the positive z axis), and
// above the horizon. It looks at the origin and sees what lies within 1.5 of
// it.
struct CameraPlace {
  float azimuth = 35;
  float elevation = 22;
};
static_assert(sizeof(CameraPlace) == 2 * sizeof(float));

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_CAMERA_H_
