#include "models/image/canvas.h"

#include <cairo/cairo.h>

#include <algorithm>
#include <string>

#include "runtime/core/log.h"

namespace trireme {
namespace {

// Cairo's own limit for the sides of a picture.
constexpr int kMaxSide = 32767;

constexpr char kFontFamily[] = "DejaVu Sans";

using SurfacePointer =
    std::unique_ptr<cairo_surface_t, decltype(&cairo_surface_destroy)>;
using ContextPointer = std::unique_ptr<cairo_t, decltype(&cairo_destroy)>;

SurfacePointer MakeSurface(int width, int height) {
  CHECK_GT(width, 0);
  CHECK_GT(height, 0);
  CHECK_LE(std::max(width, height), kMaxSide);
  SurfacePointer surface(
      cairo_image_surface_create(CAIRO_FORMAT_RGB24, width, height),
      &cairo_surface_destroy);
  CHECK_EQ(cairo_surface_status(surface.get()), CAIRO_STATUS_SUCCESS)
      << cairo_status_to_string(cairo_surface_status(surface.get()));
  return surface;
}

ContextPointer MakeContext(cairo_surface_t* surface) {
  ContextPointer context(cairo_create(surface), &cairo_destroy);
  cairo_select_font_face(context.get(), kFontFamily, CAIRO_FONT_SLANT_NORMAL,
                         CAIRO_FONT_WEIGHT_NORMAL);
  return context;
}

void SetColor(cairo_t* context, Color color, double opacity = 1) {
  cairo_set_source_rgba(context, color[0] / 255.0, color[1] / 255.0,
                        color[2] / 255.0, opacity);
}

// The bytes of the UTF-8 sequence that `text` begins with; 0 if none does.
size_t SequenceLength(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  const size_t length = lead < 0x80           ? 1
                        : (lead >> 5) == 0x6  ? 2
                        : (lead >> 4) == 0xe  ? 3
                        : (lead >> 3) == 0x1e ? 4
                                              : 0;
  if (length == 0 || length > text.size()) return 0;
  uint32_t code = length == 1 ? lead : lead & (0x7f >> length);
  for (size_t i = 1; i < length; ++i) {
    const auto next = static_cast<unsigned char>(text[i]);
    if ((next >> 6) != 2) return 0;
    code = code << 6 | (next & 0x3f);
  }
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code >= 0xd800 && code < 0xe000;
  return code < kLeast[length] || code > 0x10ffff || surrogate ? 0 : length;
}

// Cairo draws nothing more once it has met bytes that are no UTF-8.
std::string ValidUtf8(std::string_view text) {
  std::string valid;
  while (!text.empty()) {
    const size_t length = SequenceLength(text);
    if (length == 0 || text[0] == '\0') {
      valid += "\ufffd";
      text.remove_prefix(1);
    } else {
      valid += text.substr(0, length);
      text.remove_prefix(length);
    }
  }
  return valid;
}

// What measures texts while there is no canvas yet.
ContextPointer MeasuringContext(double size) {
  ContextPointer context = MakeContext(MakeSurface(1, 1).get());
  cairo_set_font_size(context.get(), size);
  return context;
}

double AdvanceOf(cairo_t* context, const std::string& text) {
  cairo_text_extents_t extents;
  cairo_text_extents(context, text.c_str(), &extents);
  return extents.x_advance;
}

cairo_font_extents_t FontExtents(double size) {
  cairo_font_extents_t extents;
  cairo_font_extents(MeasuringContext(size).get(), &extents);
  return extents;
}

}  // namespace

struct Canvas::Surface {
  Surface(int width, int height)
      : surface(MakeSurface(width, height)),
        context(MakeContext(surface.get())) {}

  SurfacePointer surface;
  ContextPointer context;
};

double Canvas::TextWidth(std::string_view text, double size) {
  return AdvanceOf(MeasuringContext(size).get(), ValidUtf8(text));
}

double Canvas::Ascent(double size) { return FontExtents(size).ascent; }

double Canvas::Descent(double size) { return FontExtents(size).descent; }

Canvas::Canvas(int width, int height)
    : surface_(std::make_shared<Surface>(width, height)) {
  Rectangle(0, 0, width, height, {255, 255, 255});
}

int Canvas::width() const {
  return cairo_image_surface_get_width(surface_->surface.get());
}

int Canvas::height() const {
  return cairo_image_surface_get_height(surface_->surface.get());
}

void Canvas::Rectangle(double x, double y, double width, double height,
                       Color color) {
  cairo_t* context = surface_->context.get();
  SetColor(context, color);
  cairo_rectangle(context, x, y, width, height);
  cairo_fill(context);
}

void Canvas::Text(double x, double baseline, std::string_view text, double size,
                  Color color, TextAlign align) {
  cairo_t* context = surface_->context.get();
  const std::string valid = ValidUtf8(text);
  cairo_set_font_size(context, size);
  SetColor(context, color);
  if (align != TextAlign::kLeft) {
    const double advance = AdvanceOf(context, valid);
    x -= align == TextAlign::kCenter ? advance / 2 : advance;
  }
  cairo_move_to(context, x, baseline);
  cairo_show_text(context, valid.c_str());
}

void Canvas::Polyline(std::span<const Point> points, double width,
                      double opacity, double top, double bottom, Color color) {
  if (points.empty()) return;
  cairo_t* context = surface_->context.get();
  cairo_save(context);
  cairo_rectangle(context, 0, top, this->width(), bottom - top);
  cairo_clip(context);
  SetColor(context, color, opacity);
  cairo_set_line_width(context, width);
  cairo_set_line_join(context, CAIRO_LINE_JOIN_ROUND);
  // A line of no length shows its caps only.
  if (points.size() == 1) cairo_set_line_cap(context, CAIRO_LINE_CAP_ROUND);
  cairo_move_to(context, points[0].x, points[0].y);
  for (const Point& point : points) cairo_line_to(context, point.x, point.y);
  cairo_stroke(context);
  cairo_restore(context);
}

void Canvas::Picture(int x, int y, const Image& picture, int magnify) {
  CHECK(IsValid(picture));
  const Image colour = WithChannels(picture, 3);
  const SurfacePointer source = MakeSurface(colour.width, colour.height);
  unsigned char* rows = cairo_image_surface_get_data(source.get());
  const int stride = cairo_image_surface_get_stride(source.get());
  for (int row = 0; row < colour.height; ++row) {
    auto* pixels = reinterpret_cast<uint32_t*>(
        rows + static_cast<ptrdiff_t>(row) * stride);
    for (int column = 0; column < colour.width; ++column) {
      const uint8_t* rgb = colour.At(column, row);
      pixels[column] = uint32_t{rgb[0]} << 16 | uint32_t{rgb[1]} << 8 | rgb[2];
    }
  }
  cairo_surface_mark_dirty(source.get());
  cairo_t* context = surface_->context.get();
  cairo_save(context);
  cairo_translate(context, x, y);
  cairo_scale(context, magnify, magnify);
  cairo_set_source_surface(context, source.get(), 0, 0);
  cairo_pattern_set_filter(cairo_get_source(context), CAIRO_FILTER_NEAREST);
  cairo_paint(context);
  cairo_restore(context);
}

Image Canvas::ToImage() const {
  cairo_surface_t* surface = surface_->surface.get();
  cairo_surface_flush(surface);
  const unsigned char* rows = cairo_image_surface_get_data(surface);
  const int stride = cairo_image_surface_get_stride(surface);
  Image image = FilledImage(width(), height(), 3, 0);
  for (int row = 0; row < image.height; ++row) {
    const auto* pixels = reinterpret_cast<const uint32_t*>(
        rows + static_cast<ptrdiff_t>(row) * stride);
    for (int column = 0; column < image.width; ++column) {
      uint8_t* rgb = image.At(column, row);
      rgb[0] = static_cast<uint8_t>(pixels[column] >> 16);
      rgb[1] = static_cast<uint8_t>(pixels[column] >> 8);
      rgb[2] = static_cast<uint8_t>(pixels[column]);
    }
  }
  return image;
}

}  // namespace trireme
