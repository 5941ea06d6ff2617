// Portraits from portrait.onnx with OpenVINO's C++ API: no Python, no torch.
//
//   portrait MODEL z.f32 OUT_PREFIX [eyes mouth pose [color height grad_height]]
//
// z.f32: raw float32 latents, one row after the other, as many as portraits are wanted. Writes PREFIX0.ppm, PREFIX1.ppm ...

#include <openvino/openvino.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

std::vector<float> read_floats(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    if (bytes.empty() || bytes.size() % sizeof(float) != 0) {
        throw std::runtime_error(path + " holds no float32 numbers");
    }
    std::vector<float> values(bytes.size() / sizeof(float));
    std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(values.data()));
    return values;
}

void write_ppm(const std::string& path, const std::uint8_t* pixels, std::size_t height, std::size_t width) {
    std::ofstream file(path, std::ios::binary);
    file << "P6\n" << width << ' ' << height << "\n255\n";
    file.write(reinterpret_cast<const char*>(pixels), static_cast<std::streamsize>(height * width * 3));
    if (!file) {
        throw std::runtime_error("cannot write " + path);
    }
}

int run(int argc, char** argv) {
    if (argc != 4 && argc != 7 && argc != 10) {
        std::cerr << "usage: portrait MODEL z.f32 OUT_PREFIX [eyes mouth pose [color height grad_height]]\n";
        return 2;
    }
    std::vector<float> numbers = {0, 0, 0, -1, 0, 0};  // no expression; a negative colour: no dye
    for (int i = 4; i < argc; ++i) {
        numbers[static_cast<std::size_t>(i - 4)] = std::strtof(argv[i], nullptr);
    }

    ov::Core core;
    auto compiled = core.compile_model(
        core.read_model(argv[1]), "CPU",
        {{"INFERENCE_PRECISION_HINT", "f32"}, {"PERFORMANCE_HINT", "LATENCY"}});
    auto request = compiled.create_infer_request();

    const std::vector<float> z = read_floats(argv[2]);
    const auto z_size = static_cast<std::size_t>(compiled.input("z").get_partial_shape()[1].get_length());
    if (z.size() % z_size != 0) {
        throw std::runtime_error(std::string(argv[2]) + " is no whole number of latents");
    }
    // What is the same for every row of the batch; inputs that this model lacks are left out.
    const std::map<std::string, std::vector<float>> same = {
        {"truncation", {1, 0}},
        {"expression", {numbers[0], numbers[1], numbers[2]}},
        {"ombre", {numbers[3], numbers[4], numbers[5]}},
    };
    for (std::size_t row = 0; row * z_size < z.size(); ++row) {
        for (const auto& input : compiled.inputs()) {
            const std::string name = input.get_any_name();
            ov::Shape shape{1};
            for (auto dim = input.get_partial_shape().begin() + 1; dim != input.get_partial_shape().end(); ++dim) {
                shape.push_back(static_cast<std::size_t>(dim->get_length()));
            }
            ov::Tensor tensor(input.get_element_type(), shape);
            std::fill_n(static_cast<char*>(tensor.data()), tensor.get_byte_size(), 0);
            if (name == "z") {
                std::copy_n(z.begin() + static_cast<std::ptrdiff_t>(row * z_size), z_size, tensor.data<float>());
            } else if (const auto found = same.find(name); found != same.end()) {
                std::copy(found->second.begin(), found->second.end(), tensor.data<float>());
            }
            request.set_tensor(name, tensor);
        }
        request.infer();
        const ov::Tensor image = request.get_tensor("image");
        const auto shape = image.get_shape();  // [1, height, width, 3]
        write_ppm(argv[3] + std::to_string(row) + ".ppm", image.data<std::uint8_t>(), shape[1], shape[2]);
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception& error) {
        std::cerr << "portrait: " << error.what() << '\n';
        return 1;
    }
}
