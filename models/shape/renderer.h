// Pictures of meshes that a person can judge: shaded by a soft sky, on a
// ground that shows the contact shadow.

#ifndef TRIREME_MODELS_SHAPE_RENDERER_H_
#define TRIREME_MODELS_SHAPE_RENDERER_H_

#include <array>
#include <span>
#include <vector>

#include "models/image/image.h"
#include "models/shape/camera.h"
#include "models/shape/mesh.h"

namespace trireme {

struct RenderOptions {
  int side = 256;  // pixels, of a square picture
  CameraPlace camera;
  // Per pixel: `antialias`² rays, and for each so many into the sky.
  int antialias = 2;
  int sky_rays = 16;
  std::array<float, 3> color = {0.62f, 0.70f, 0.80f};
  // Interpolates normals over edges of less than 40 degrees, but where more
  // than 64 triangles meet.
  bool smooth = true;
  bool ground = true;
};

// The mesh is a repaired one within the cube (NormalizeMesh). RGB. The same
// mesh gives the same picture, with any number of threads.
Image RenderMesh(const Mesh& mesh, const RenderOptions& options = {});

// `views` pictures from all around, beginning with options.camera.
std::vector<Image> RenderTurntable(const Mesh& mesh, int views,
                                   const RenderOptions& options = {});

// A picture, and of each of its pixels [side, side] how much farther from the
// camera the surface at its centre is than the origin, over kDepthRange; 1 of
// none. From −1 to 1.
struct DepthView {
  Image picture;
  std::vector<float> depths;
};
inline constexpr float kDepthRange = 1.7f;

// From each of `cameras`, in place of options.camera.
std::vector<DepthView> RenderViews(const Mesh& mesh,
                                   std::span<const CameraPlace> cameras,
                                   const RenderOptions& options = {});

// The Plücker coordinates [6, side, side] of the rays through the centres of
// such a picture's pixels: the direction d, of length 1, then e × d of the
// camera's place e.
std::vector<float> CameraRays(const CameraPlace& camera, int side);

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_RENDERER_H_
