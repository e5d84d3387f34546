// The floor of a start: a C++ program that says a line.
#include <iostream>

int main() { std::cout << "hello\n"; }
